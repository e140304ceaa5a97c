"""GELU by the exponential is GELU by the tanh."""

from pathlib import Path

import torch
from tiny_model import write_tiny
from torch.nn import functional
from transformers.activations import GELUTanh

from gemma4vec.model.backbone.backbone import load_backbone
from gemma4vec.model.backbone.gelu import SigmoidGelu, use_sigmoid_gelu


def test_values_and_gradients_equal_torchs_tanh_form() -> None:
    x = torch.cat([torch.linspace(-12, 12, 4001, dtype=torch.float64), torch.tensor([-1e4, 0.0, 1e4])])
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    mine, other = SigmoidGelu()(ours), functional.gelu(theirs, approximate="tanh")
    torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-15)
    mine.sum().backward()
    other.sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-11)


def test_bf16_is_computed_in_fp32_and_rounded_once() -> None:
    x = torch.linspace(-8, 8, 999).bfloat16()
    wide = functional.gelu(x.double(), approximate="tanh")
    found = SigmoidGelu()(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), wide, rtol=2**-8, atol=1e-6)


def test_every_tanh_gelu_of_a_gemma_is_replaced(tmp_path: Path) -> None:
    backbone = load_backbone(write_tiny(tmp_path, "gemma3", layers=2), causal=True, dtype=torch.float32)
    assert sum(isinstance(module, GELUTanh) for module in backbone.modules()) == 2
    use_sigmoid_gelu(backbone.layers)
    assert sum(isinstance(module, SigmoidGelu) for module in backbone.modules()) == 2
    assert not any(isinstance(module, GELUTanh) for module in backbone.modules())
