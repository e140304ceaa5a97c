"""Readouts against slow loops, one document at a time."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gemma4vec.model.packing.packed_batch import PackedBatch, Tokens, pack
from gemma4vec.model.readout import READOUTS, BaseInfo, Readout
from gemma4vec.recipe import readouts as words

D, LAYERS = 6, 3
documents = st.lists(st.tuples(st.integers(1, 12), st.integers(0, 14)), min_size=1, max_size=12)
POOLED = {
    "mean": words.Mean,
    "weighted_mean": words.WeightedMean,
    "attention": words.Attention,
    "latent_attention": words.LatentAttention,
    "layer_mix": words.LayerMix,
}


def made(settings: Any) -> Readout:
    """A readout in float64 with random parameters."""
    torch.manual_seed(3)
    readout = READOUTS[settings.name](settings, BaseInfo(D, LAYERS)).double()
    with torch.no_grad():
        for parameter in readout.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return readout


def laid_out(shapes: list[tuple[int, int]], layers: int | None = None) -> tuple[PackedBatch, Tensor]:
    """A packed layout of documents of (length, prompt length), and random states for its tokens."""
    tokens = [Tokens(list(range(1, length + 1)), min(prompt, length)) for length, prompt in shapes]
    (layout,) = pack(tokens, 16, 1000, 0)
    shape = (layout.real_tokens, D) if layers is None else (layers, layout.real_tokens, D)
    return layout, torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def one_by_one(states: Tensor, layout: PackedBatch) -> list[tuple[Tensor, int]]:
    parts = states.split(layout.lengths_N.tolist(), dim=-2)
    return list(zip(parts, layout.prompts_N.tolist(), strict=True))


def skipped(length: int, prompt: int, pool_prompt: bool) -> int:
    return 0 if pool_prompt or prompt >= length else prompt


@settings(deadline=None, max_examples=60)
@given(documents, st.booleans())
def test_mean_equals_a_loop(shapes: list[tuple[int, int]], pool_prompt: bool) -> None:
    layout, states_TD = laid_out(shapes)
    found = made(words.Mean(pool_prompt=pool_prompt)).pool(states_TD, layout)
    for vector, (states, prompt) in zip(found, one_by_one(states_TD, layout), strict=True):
        start = skipped(len(states), prompt, pool_prompt)
        torch.testing.assert_close(vector, sum(states[start:]) / (len(states) - start), rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=60)
@given(documents, st.booleans())
def test_weighted_mean_equals_sgpts_formula(shapes: list[tuple[int, int]], pool_prompt: bool) -> None:
    layout, states_TD = laid_out(shapes)
    found = made(words.WeightedMean(pool_prompt=pool_prompt)).pool(states_TD, layout)
    for vector, (states, prompt) in zip(found, one_by_one(states_TD, layout), strict=True):
        kept = range(skipped(len(states), prompt, pool_prompt), len(states))
        total = sum(i + 1 for i in kept)
        expected = sum((i + 1) / total * states[i] for i in kept)
        torch.testing.assert_close(vector, expected, rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=30)
@given(documents)
def test_first_and_last_token_equal_a_loop(shapes: list[tuple[int, int]]) -> None:
    layout, states_TD = laid_out(shapes)
    for settings_, index in ((words.LastToken(), -1), (words.FirstToken(), 0)):
        found = made(settings_).pool(states_TD, layout)
        for vector, (states, _) in zip(found, one_by_one(states_TD, layout), strict=True):
            assert torch.equal(vector, states[index])


@settings(deadline=None, max_examples=40)
@given(documents, st.booleans(), st.sampled_from([1, 2, 3]))
def test_attention_equals_the_softmax_of_each_document(
    shapes: list[tuple[int, int]], pool_prompt: bool, heads: int
) -> None:
    layout, states_TD = laid_out(shapes)
    readout = made(words.Attention(heads=heads, pool_prompt=pool_prompt))
    query = readout.get_parameter("query_D")
    size = D // heads
    for vector, (states, prompt) in zip(readout.pool(states_TD, layout), one_by_one(states_TD, layout), strict=True):
        kept = states[skipped(len(states), prompt, pool_prompt) :]
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            weights = [math.exp(float((state[part] @ query[part]).detach()) / math.sqrt(size)) for state in kept]
            expected = sum(w * state[part] for w, state in zip(weights, kept, strict=True)) / sum(weights)
            torch.testing.assert_close(vector[part], expected, rtol=0, atol=1e-10)


def test_attention_starts_as_the_mean() -> None:
    layout, states_TD = laid_out([(5, 2), (9, 0)])
    fresh = READOUTS["attention"](words.Attention(), BaseInfo(D, LAYERS)).double()
    torch.testing.assert_close(
        fresh.pool(states_TD, layout), made(words.Mean()).pool(states_TD, layout), rtol=0, atol=1e-12
    )


@settings(deadline=None, max_examples=15)
@given(documents, st.booleans(), st.sampled_from([1, 2, 3]))
def test_latent_attention_equals_torchs_own_multihead_attention(
    shapes: list[tuple[int, int]], pool_prompt: bool, heads: int
) -> None:
    layout, states_TD = laid_out(shapes)
    readout = made(words.LatentAttention(latents=32, heads=heads, mlp=2, pool_prompt=pool_prompt))
    weights = {name: value.detach() for name, value in readout.named_parameters()}
    oracle = nn.MultiheadAttention(D, heads, bias=False, dtype=torch.float64)
    with torch.no_grad():
        oracle.in_proj_weight.copy_(torch.cat([weights[f"{name}.weight"] for name in ("query", "key", "value")]))
        oracle.out_proj.weight.copy_(weights["output.weight"])

    def normed(x: Tensor, name: str) -> Tensor:
        x = (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, keepdim=True, unbiased=False) + 1e-5)
        return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    latents = normed(weights["latents_RD"], "latent_norm")
    for vector, (states, prompt) in zip(readout.pool(states_TD, layout), one_by_one(states_TD, layout), strict=True):
        kept = states[skipped(len(states), prompt, pool_prompt) :]
        kept = kept + oracle(normed(kept, "query_norm"), latents, latents, need_weights=False)[0]
        inner = normed(kept, "mlp_norm") @ weights["mlp.up.weight"].T + weights["mlp.up.bias"]
        values, gates = inner[:, : 2 * D], inner[:, 2 * D :]
        gated = values * gates * 0.5 * (1 + torch.erf(gates / math.sqrt(2)))
        kept = kept + gated @ weights["mlp.down.weight"].T + weights["mlp.down.bias"]
        torch.testing.assert_close(vector, kept.mean(0), rtol=0, atol=1e-9)


def test_latent_attention_may_be_narrower_or_wider_than_the_base() -> None:
    layout, states_TD = laid_out([(5, 2), (9, 0)])
    for width in (4, 24):
        readout = made(words.LatentAttention(latents=40, heads=4, hidden_size=width))
        assert readout.get_parameter("key.weight").shape == (width, D) and readout.pool(states_TD, layout).shape == (
            2,
            D,
        )


@settings(deadline=None, max_examples=30)
@given(documents, st.booleans(), st.booleans(), st.booleans())
def test_layer_mix_equals_elmos_formula(
    shapes: list[tuple[int, int]], pool_prompt: bool, normalize: bool, scale: bool
) -> None:
    layout, states = laid_out(shapes, LAYERS + 1)
    readout = made(words.LayerMix(pool_prompt=pool_prompt, normalize=normalize, scale=scale))
    exponentials = readout.get_parameter("weights_L").exp()
    factor = readout.get_parameter("scale") if scale else 1.0
    for vector, (states_LTD, prompt) in zip(readout.pool(states, layout), one_by_one(states, layout), strict=True):
        expected = torch.zeros(D, dtype=torch.float64)
        start = skipped(states_LTD.shape[1], prompt, pool_prompt)
        for weight, layer in zip(exponentials / exponentials.sum(), states_LTD, strict=True):
            for state in layer[start:]:
                size = torch.sqrt((state @ state) / D + 1e-6) if normalize else 1.0
                expected = expected + factor * weight * state / size / (layer.shape[0] - start)
        torch.testing.assert_close(vector, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["mean", "weighted_mean", "attention", "latent_attention", "layer_mix"])
def test_gradients_reach_the_pooled_tokens_alone_and_every_parameter(name: str) -> None:
    readout = made(POOLED[name](pool_prompt=False) if name != "latent_attention" else words.LatentAttention(heads=2))
    layout, states = laid_out([(5, 2), (3, 3), (4, 0)], LAYERS + 1 if name == "layer_mix" else None)
    states.requires_grad_()
    vectors = readout.pool(states, layout)
    (vectors * torch.randn(vectors.shape, dtype=torch.float64)).sum().backward()
    assert states.grad is not None
    touched_T = states.grad.abs().sum(-1).reshape(-1, layout.real_tokens).sum(0) > 0
    for mask, prompt in zip(touched_T.split(layout.lengths_N.tolist()), layout.prompts_N.tolist(), strict=True):
        pooled = torch.zeros(len(mask), dtype=torch.bool)
        pooled[skipped(len(mask), prompt, False) :] = True
        assert torch.equal(mask, pooled)
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in readout.parameters())


def test_sums_over_bf16_states_are_in_fp32() -> None:
    layout, _ = laid_out([(12, 0)] * 3)
    # 256 and eleven ones: bf16 would stay at 256, as its next number is 258.
    states_TD = torch.ones(layout.real_tokens, D, dtype=torch.bfloat16)
    states_TD[0] = 256
    for settings_ in (words.Mean(), words.Attention()):
        found = READOUTS[settings_.name](settings_, BaseInfo(D, LAYERS)).pool(states_TD, layout)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found[0], torch.full((D,), 267 / 12))


def test_the_registry_knows_what_each_readout_is() -> None:
    settings_of = {kind.model_fields["name"].default for kind in words.Readout.__origin__.__args__}
    assert set(READOUTS) == settings_of
    assert all(name == readout.name and issubclass(readout, Readout) for name, readout in READOUTS.items())
    assert {name for name, readout in READOUTS.items() if "eos" in readout.needs} == {"last_token", "contextual_token"}
    with pytest.raises(TypeError, match=r"defines no pool\(\)"):
        Readout(words.Mean(), BaseInfo(D, LAYERS)).pool(torch.zeros(1, D), laid_out([(1, 0)])[0])


def test_readouts_are_initialised_from_the_seed_alone() -> None:
    def fresh(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        return READOUTS["latent_attention"](words.LatentAttention(heads=2), BaseInfo(D, LAYERS)).state_dict()

    first, again, other = fresh(1), fresh(1), fresh(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["latents_RD"], other["latents_RD"])
    assert all(value.dtype == torch.float32 for value in first.values())
