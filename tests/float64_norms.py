"""RMSNorm in a tensor's own type.

The library computes it in fp32 whatever the model's type; sums of gradients in another order then differ by rounding.
"""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.models.gemma3 import modeling_gemma3
from transformers.models.llama import modeling_llama


def _gemma(self: Any, x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * (1.0 + self.weight)


def _llama(self: Any, x: Tensor) -> Tensor:
    return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)


def use_float64_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    """For Gemma 3 and Llama, until the test ends."""
    monkeypatch.setattr(modeling_gemma3.Gemma3RMSNorm, "forward", _gemma)
    monkeypatch.setattr(modeling_llama.LlamaRMSNorm, "forward", _llama)
