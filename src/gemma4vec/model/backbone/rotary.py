"""The half turn of rotary embeddings with a gradient that is again a half turn, for compiled layers on a CPU.

Rotary embeddings (Su et al. 2021, arXiv:2104.09864) need `rotate_half([a, b]) = [-b, a]`. The library writes it with
slices, whose backward pass fills two arrays with zeros and adds them up; compiled, that was the slowest kernel left
(measured on an AMD EPYC with AVX512: 3% of a training step). The gradient of a half turn is the half turn back.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class _HalfTurn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=-1)
        return torch.cat([-second, first], dim=-1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        first, second = grad.chunk(2, dim=-1)
        return torch.cat([second, -first], dim=-1)


def rotate_half(x: Tensor) -> Tensor:
    """`[-b, a]` of `x = [a, b]` along the last dimension, which must be even."""
    turned: Tensor = _HalfTurn.apply(x)
    return turned


# What the library's modules had, by their names, where ours stands now.
_LIBRARY: dict[str, Callable[[Tensor], Tensor]] = {}


def use_fused_rotary(model: nn.Module, own: bool = True) -> bool:
    """Let the layers of `model` rotate with it; gives whether they turn in the same way, so that it could be done.

    The library calls it by a name of the model's module, so every model of that type in this process now rotates so:
    the same values, and the same gradients. `own=False` puts the library's back.
    """
    module: Any = sys.modules[type(model).__module__]
    if not own:
        if module.__name__ in _LIBRARY:
            module.rotate_half = _LIBRARY.pop(module.__name__)
        return False
    x = torch.arange(8.0)
    if not hasattr(module, "rotate_half") or not torch.equal(module.rotate_half(x), rotate_half(x)):
        return False  # some models pair neighbours instead of halves
    if module.rotate_half is not rotate_half:
        _LIBRARY[module.__name__] = module.rotate_half
        module.rotate_half = rotate_half
    return True
