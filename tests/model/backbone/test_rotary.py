"""Our half turn equals the library's, forth and back."""

from pathlib import Path

import pytest
import torch
from tiny_model import write_tiny
from transformers.models.llama import modeling_llama

from gemma4vec.model.backbone import rotary
from gemma4vec.model.backbone.backbone import load_backbone
from gemma4vec.model.packing.packed_batch import Tokens, pack


def test_value_and_gradient() -> None:
    x = torch.randn(2, 3, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    first, second = x.chunk(2, dim=-1)
    assert torch.equal(rotary.rotate_half(x), torch.cat([-second, first], dim=-1))
    assert torch.autograd.gradcheck(rotary.rotate_half, x.requires_grad_())


def test_a_model_gives_the_same_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modeling_llama, "rotate_half", modeling_llama.rotate_half)  # put back afterwards
    (layout,) = pack([Tokens([2, 7, 9, 30, 4]), Tokens([2, 8, 11])], 16, 64, 0)
    backbone = load_backbone(write_tiny(tmp_path, "llama"), causal=True, dtype=torch.float64)
    found = []
    for own in (False, True):
        if own:
            assert rotary.use_fused_rotary(backbone.model)
            assert modeling_llama.rotate_half is rotary.rotate_half
        states = backbone(layout)
        backbone.zero_grad()
        states.pow(3).sum().backward()
        found.append([states.detach(), *(p.grad.clone() for p in backbone.parameters() if p.grad is not None)])
    for plain, turned in zip(*found, strict=True):
        torch.testing.assert_close(turned, plain, rtol=1e-12, atol=1e-12)


def test_a_model_that_turns_otherwise_or_not_at_all_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not rotary.use_fused_rotary(torch.nn.Linear(2, 2))

    def neighbors(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)

    monkeypatch.setattr(modeling_llama, "rotate_half", neighbors)
    backbone = load_backbone(write_tiny(tmp_path, "llama"), causal=True, dtype=torch.float64)
    assert not rotary.use_fused_rotary(backbone.model)
    assert modeling_llama.rotate_half is neighbors
