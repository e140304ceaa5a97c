"""Costs of layers in a float type that this machine emulates, from the same layers in fp32.

Layers in an emulated type would be measured for a quarter of an hour, to say what one product of matrices says.
"""

import time
from dataclasses import replace

import torch

from gemma4vec.machine.dtype import choose_dtype
from gemma4vec.training.estimate.layers import LayerCosts

_SIZE = 256  # of the square matrices: 30 ms in fp32 on one slow core at most, below a second where bf16 is emulated
_TIMES = 3


def is_emulated(dtype: torch.dtype, device: str) -> bool:
    """Whether products in this type are computed in another one."""
    return choose_dtype(device, dtype).slow


def slowdown(dtype: torch.dtype, device: str) -> float:
    """How many times as long a product of two square matrices takes in `dtype` as in fp32; at least 1."""
    return max(1.0, _seconds(dtype, device) / _seconds(torch.float32, device))


def _seconds(dtype: torch.dtype, device: str) -> float:
    """The shortest of a few products, after one that only warms up."""
    left, right = (torch.full((_SIZE, _SIZE), 0.5, dtype=dtype, device=device) for _ in range(2))
    times = []
    for _ in range(1 + _TIMES):
        started = time.perf_counter()
        (left @ right).sum().item()  # waits for the result
        times.append(time.perf_counter() - started)
    return min(times[1:])


def as_emulated(measured: LayerCosts, dtype: torch.dtype, times: float) -> LayerCosts:
    """Costs in `dtype` of layers that were measured in fp32: `times` as slow, and smaller by the size of a number."""
    smaller = dtype.itemsize / torch.float32.itemsize
    return replace(
        measured,
        seconds={place: times * seconds for place, seconds in measured.seconds.items()},
        kept_bytes={place: smaller * size for place, size in measured.kept_bytes.items()},
        eager_kept_bytes={place: smaller * size for place, size in measured.eager_kept_bytes.items()},
        peak_bytes=None if measured.peak_bytes is None else round(smaller * measured.peak_bytes),
    )
