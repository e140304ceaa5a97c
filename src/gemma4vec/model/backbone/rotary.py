"""`rotate_half` of rotary embeddings with a cheap gradient, for compiled layers on a CPU.

Rotary embeddings (Su et al. 2021, arXiv:2104.09864) need `rotate_half([a, b]) = [-b, a]`. The library writes it with
slices, whose backward pass fills two arrays with zeros and adds them. Compiled, that was the slowest kernel left (3% of
a training step on an AMD EPYC with AVX512, measured). The gradient is the inverse rotation, `[a, b] -> [b, -a]`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gemma4vec.model import upstream


class _RotateHalf(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=-1)
        return torch.cat([-second, first], dim=-1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        first, second = grad.chunk(2, dim=-1)
        return torch.cat([second, -first], dim=-1)


def rotate_half(x: Tensor) -> Tensor:
    """Map `[a, b]` to `[-b, a]` along the last dimension, whose size must be even."""
    turned: Tensor = _RotateHalf.apply(x)
    return turned


# The library's own function of each modeling file in which ours replaces it.
_REPLACED: dict[str, Callable[[Tensor], Tensor]] = {}


def use_fused_rotary(model: nn.Module, own: bool = True) -> bool:
    """Let the layers of `model` call our `rotate_half`; returns whether they do.

    The library looks the function up in the model's module, so this changes every model of that type in this process:
    values and gradients stay the same. `own=False` restores the library's function.
    """
    file = type(model).__module__
    if not own:
        if file in _REPLACED:
            upstream.set_rotate_half(model, _REPLACED.pop(file))
        return False
    library = upstream.rotate_half_of(model)
    x = torch.arange(8.0)
    if library is None or not torch.equal(library(x), rotate_half(x)):
        return False  # some models pair neighbors instead of halves
    if library is not rotate_half:
        _REPLACED[file] = library
        upstream.set_rotate_half(model, rotate_half)
    return True
