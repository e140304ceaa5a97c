"""Readouts against slow loops, one document at a time."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gemma4vec.model.packing import Layout, Tokens, packed
from gemma4vec.model.readout import READOUTS
from gemma4vec.model.readout.base import Readout

D = 3
documents = st.lists(st.tuples(st.integers(1, 12), st.integers(0, 14)), min_size=1, max_size=12)


def laid_out(shapes: list[tuple[int, int]]) -> tuple[Layout, Tensor]:
    """A packed layout of documents of (length, prompt length), and random states for its tokens."""
    tokens = [Tokens(list(range(1, length + 1)), min(prompt, length)) for length, prompt in shapes]
    (layout,) = packed(tokens, 16, 1000, 0)
    states = torch.randn(layout.real_tokens, D, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return layout, states


def one_by_one(states_TD: Tensor, layout: Layout) -> list[tuple[Tensor, int]]:
    parts = states_TD.split(layout.lengths_N.tolist())
    return list(zip(parts, layout.prompts_N.tolist(), strict=True))


@settings(deadline=None, max_examples=60)
@given(documents, st.booleans())
def test_mean_equals_a_loop(shapes: list[tuple[int, int]], pool_prompt: bool) -> None:
    layout, states_TD = laid_out(shapes)
    found = READOUTS["mean"](D, pool_prompt).pool(states_TD, layout)
    for vector, (states, prompt) in zip(found, one_by_one(states_TD, layout), strict=True):
        skipped = 0 if pool_prompt or prompt >= len(states) else prompt
        expected = sum(states[skipped:]) / (len(states) - skipped)
        torch.testing.assert_close(vector, expected, rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=30)
@given(documents)
def test_last_token_equals_a_loop(shapes: list[tuple[int, int]]) -> None:
    layout, states_TD = laid_out(shapes)
    found = READOUTS["last_token"](D).pool(states_TD, layout)
    for vector, (states, _) in zip(found, one_by_one(states_TD, layout), strict=True):
        assert torch.equal(vector, states[-1])


@pytest.mark.parametrize("name", list(READOUTS))
def test_gradients_reach_the_pooled_tokens_alone(name: str) -> None:
    layout, states_TD = laid_out([(5, 2), (3, 3), (4, 0)])
    states_TD.requires_grad_()
    READOUTS[name](D, pool_prompt=False).pool(states_TD, layout).sum().backward()
    assert states_TD.grad is not None
    touched = [part.abs().sum(1) > 0 for part in states_TD.grad.split(layout.lengths_N.tolist())]
    for mask, prompt in zip(touched, layout.prompts_N.tolist(), strict=True):
        pooled = torch.zeros(len(mask), dtype=torch.bool)
        pooled[-1 if name == "last_token" else (prompt if prompt < len(mask) else 0) :] = True
        assert torch.equal(mask, pooled)


def test_a_mean_of_bf16_states_is_summed_in_fp32() -> None:
    layout, _ = laid_out([(12, 0)] * 3)
    # 256 and twelve ones: bf16 would stay at 256, as its next number is 258.
    states_TD = torch.ones(layout.real_tokens, D, dtype=torch.bfloat16)
    states_TD[0] = 256
    found = READOUTS["mean"](D).pool(states_TD, layout)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[0], torch.full((D,), 267 / 12))


def test_the_registry_knows_what_each_readout_is() -> None:
    assert set(READOUTS) == {"mean", "last_token"}
    assert all(name == readout.name and issubclass(readout, Readout) for name, readout in READOUTS.items())
    assert READOUTS["last_token"].needs == {"eos"} and not READOUTS["mean"].needs
    with pytest.raises(TypeError, match=r"defines no pool\(\)"):
        Readout(D).pool(torch.zeros(1, D), laid_out([(1, 0)])[0])
