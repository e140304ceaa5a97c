"""RMSNorm in a tensor's own type.

The library computes it in fp32 whatever the model's type; sums of gradients in another order then differ by rounding.
"""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.models.embedding_gemma2 import modeling_embedding_gemma2
from transformers.models.gemma3 import modeling_gemma3
from transformers.models.gemma4 import modeling_gemma4
from transformers.models.gemma4_unified import modeling_gemma4_unified
from transformers.models.llama import modeling_llama
from transformers.models.mistral import modeling_mistral
from transformers.models.qwen3 import modeling_qwen3
from transformers.models.t5gemma import modeling_t5gemma
from transformers.models.t5gemma2 import modeling_t5gemma2


def _gemma(self: Any, x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * (1.0 + self.weight)


def _gemma4(self: Any, x: Tensor) -> Tensor:
    normed = x * torch.pow(x.pow(2).mean(-1, keepdim=True) + self.eps, -0.5)
    return normed * self.weight if self.with_scale else normed


def _llama(self: Any, x: Tensor) -> Tensor:
    return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)


_FORWARDS = {
    modeling_gemma3.Gemma3RMSNorm: _gemma,
    modeling_t5gemma.T5GemmaRMSNorm: _gemma,
    modeling_t5gemma2.T5Gemma2RMSNorm: _gemma,
    modeling_gemma4.Gemma4RMSNorm: _gemma4,
    modeling_gemma4_unified.Gemma4UnifiedRMSNorm: _gemma4,
    modeling_embedding_gemma2.EmbeddingGemma2RMSNorm: _gemma4,
    modeling_llama.LlamaRMSNorm: _llama,
    modeling_mistral.MistralRMSNorm: _llama,
    modeling_qwen3.Qwen3RMSNorm: _llama,
}


def use_float64_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    """For every family, until the test ends."""
    for norm, forward in _FORWARDS.items():
        monkeypatch.setattr(norm, "forward", forward)
