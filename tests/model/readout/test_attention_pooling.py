"""Grouped attention equals torch's own, in values and gradients; compiled layers equal plain ones."""

from pathlib import Path

import pytest
import torch
from tiny_model import write_tiny
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from traced import trace_only
from transformers.models.t5gemma.modeling_t5gemma import eager_attention_forward

from gemma4vec.model.backbone.architectures import Reach
from gemma4vec.model.backbone.attention import matmul_attention
from gemma4vec.model.backbone.backbone import load_backbone
from gemma4vec.model.backbone.masks import attention_mask
from gemma4vec.model.packing.packed_batch import Tokens, pack


@pytest.mark.parametrize(("heads", "key_heads"), [(4, 1), (4, 2), (3, 3)])
@pytest.mark.parametrize("causal", [True, False])
def test_it_equals_the_library_in_values_and_gradients(heads: int, key_heads: int, causal: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = {"dtype": torch.float64, "generator": generator}
    query = torch.randn(2, heads, 12, 8, **shape).requires_grad_()
    key = torch.randn(2, key_heads, 12, 8, **shape).requires_grad_()
    value = torch.randn(2, key_heads, 12, 8, **shape).requires_grad_()
    segments = torch.tensor([[0] * 5 + [1] * 7, [0] * 9 + [-1] * 3])
    positions = torch.tensor([[*range(5), *range(7)], [*range(9), 0, 0, 0]])
    mask = attention_mask(positions, segments, causal=causal, reach=Reach(3, 3))
    ours = matmul_attention(nn.Identity(), query, key, value, mask, scaling=0.3)[0]
    repeat = heads // key_heads
    theirs = scaled_dot_product_attention(
        query, key.repeat_interleave(repeat, 1), value.repeat_interleave(repeat, 1), attn_mask=mask, scale=0.3
    ).transpose(1, 2)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    weights = torch.randn(ours.shape, **shape)
    gradients = [
        torch.autograd.grad((x * weights).sum(), (query, key, value), retain_graph=True) for x in (ours, theirs)
    ]
    for mine, other in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-12)


def test_capped_scores_equal_the_librarys_own() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 12, 8, dtype=torch.float64, generator=generator)
    segments = torch.tensor([[0] * 5 + [1] * 7, [0] * 9 + [-1] * 3])
    positions = torch.tensor([[*range(5), *range(7)], [*range(9), 0, 0, 0]])
    mask = attention_mask(positions, segments, causal=False)
    module = nn.Identity()
    module.num_key_value_groups, module.head_dim = 1, 8
    added = torch.zeros(mask.shape, dtype=torch.float64).masked_fill(~mask, -torch.inf)
    theirs = eager_attention_forward(module, query, key, value, added, scaling=0.7, softcap=0.5)[0]
    ours = matmul_attention(module, query, key, value, mask, scaling=0.7, softcap=0.5)[0]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)  # their softmax is in fp32
    assert not torch.allclose(ours, matmul_attention(module, query, key, value, mask, scaling=0.7)[0], atol=1e-3)


# Gemma 4's layers share keys and values through a dictionary, have inputs of their own and heads of two sizes.
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    ("architecture", "backend"),
    [
        ("gemma3", "aot_eager"),
        ("gemma4", "aot_eager"),
        pytest.param("gemma3", "inductor", marks=pytest.mark.slow),
        pytest.param("gemma4", "inductor", marks=pytest.mark.slow),
    ],
)
def test_compiled_layers_equal_plain_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str, backend: str, causal: bool
) -> None:
    """`aot_eager` traces layers, and their backward pass, as `inductor` does, and compiles nothing.

    Tracing Gemma 4's layers for unknown shapes takes a minute; each shape by itself takes seconds.
    """
    if backend == "aot_eager":
        trace_only(monkeypatch)
    generator = torch.Generator().manual_seed(0)
    texts = [Tokens(torch.randint(4, 400, (n,), generator=generator).tolist()) for n in (9, 7, 16, 12, 3, 8, 5, 2, 4)]
    layouts = pack(texts, 16, 32, 0)
    layouts.append(pack(texts[:1], 16, 32, 0)[0])  # one row: not for compiled layers
    assert {layout.compilable for layout in layouts} == {True, False}
    assert len({layout.input_ids_RC.shape for layout in layouts}) > 2
    if backend == "aot_eager":
        layouts = layouts[1:2] + layouts[-1:]
    found = []
    for compiled in (False, True):
        backbone = load_backbone(write_tiny(tmp_path, architecture, layers=2), causal=causal, dtype=torch.float32)
        if compiled:
            backbone.compile_layers()
        states = [backbone(layout) for layout in layouts]
        sum(state.pow(3).sum() for state in states).backward()  # of squares, behind the last norm, none would depend
        found.append((states, [p.grad for p in backbone.parameters() if p.grad is not None]))
    for plain, fast in zip(*(states + gradients for states, gradients in found), strict=True):
        assert float((plain - fast).detach().norm()) <= 1e-4 * float(plain.detach().norm())
    backbone.uncompile_layers()
    torch.testing.assert_close(backbone(layouts[0]), found[0][0][0], rtol=0, atol=1e-5)
