"""How fast this machine is, measured in under a second: matrix products and memory."""

import statistics
import time
from collections.abc import Callable

import torch

_SIZE = 1024
_REPEATS = 5
_COPY_BYTES = 64 << 20


def matmul_rate(dtype: torch.dtype, size: int = _SIZE, seconds: float = 0.2) -> float:
    """Median rate of square matrix products on the CPU, in GFLOP/s (2 * size^3 operations each).

    Args:
        size: rows and columns of the factors.
        seconds: stop repeating after about this long (at least one product is measured).
    """
    left = torch.ones(size, size, dtype=dtype)
    right = torch.ones(size, size, dtype=dtype)
    elapsed = _median_seconds(lambda: left @ right, seconds)
    return 2 * size**3 / elapsed / 1e9


def memory_bandwidth(seconds: float = 0.15) -> float:
    """Median rate of a 64 MB copy, in GB/s; bytes read and bytes written both count."""
    source = torch.ones(_COPY_BYTES // 4)
    target = torch.empty_like(source)
    elapsed = _median_seconds(lambda: target.copy_(source), seconds)
    return 2 * _COPY_BYTES / elapsed / 1e9


def _median_seconds(work: Callable[[], object], budget: float) -> float:
    work()  # the first call allocates and picks a kernel
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < _REPEATS and (not times or time.perf_counter() - started < budget):
        before = time.perf_counter()
        work()
        times.append(time.perf_counter() - before)
    return statistics.median(times)
