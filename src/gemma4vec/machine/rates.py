"""Measured speed of matrix products and memory, in under a second."""

import statistics
import time
from collections.abc import Callable

import torch

_SIZE = 1024
_SMALLEST = 64  # of the products that are tried first on a CPU
_REPEATS = {"cpu": 5, "cuda": 20}
_WARM_UP = {"cpu": 0.0, "cuda": 0.3}  # seconds; an idle GPU has a low clock
_COPY_BYTES = {"cpu": 64 << 20, "cuda": 2 << 30}  # beyond any cache
_SHARE_OF_FREE = 0.25  # of a GPU's memory, since others use it too: a quarter is read, as much is written


def matmul_rate(
    dtype: torch.dtype, size: int = _SIZE, seconds: float = 0.2, device: torch.device | str = "cpu"
) -> float:
    """Median rate of square matrix products, in GFLOP/s (2 * size^3 operations each).

    A few products are a burst: a GPU that computes for minutes has a lower clock. A CPU without bf16 takes a minute for
    one product of 1,024 rows, so on a CPU smaller products come first: the largest that fits the time is measured.

    Args:
        size: rows and columns of the factors, at most; a GPU is filled by 8192.
        seconds: stop repeating after about this long (at least one product is measured).
    """
    if torch.device(device).type == "cpu":
        size = _largest_size(dtype, size, seconds)
    # Random values: on zeros or ones a GPU switches fewer transistors and runs at a higher clock.
    left = torch.randn(size, size, device=device).to(dtype)
    right = torch.randn(size, size, device=device).to(dtype)
    elapsed = _median_seconds(lambda: left @ right, seconds, device)
    return 2 * size**3 / elapsed / 1e9


def _largest_size(dtype: torch.dtype, most: int, seconds: float) -> int:
    """Rows of the largest square matrices, up to `most`, whose product should take no longer than `seconds`."""
    size = min(_SMALLEST, most)
    while size < most:
        factor = torch.randn(size, size).to(dtype)
        factor @ factor  # the first product picks a kernel
        started = time.perf_counter()
        factor @ factor
        taken = time.perf_counter() - started
        larger = min(2 * size, most)
        if taken * (larger / size) ** 3 > seconds:
            break
        size = larger
    return size


def memory_bandwidth(seconds: float = 0.15, device: torch.device | str = "cpu") -> float:
    """Median rate of a large copy in the device's memory, in GB/s; bytes read and bytes written both count."""
    size = _COPY_BYTES[torch.device(device).type]
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()  # what torch keeps for itself is free as well
        size = min(size, int(_SHARE_OF_FREE * torch.cuda.mem_get_info(device)[0]) // 4 * 4)
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    elapsed = _median_seconds(lambda: target.copy_(source), seconds, device)
    return 2 * size / elapsed / 1e9


def _median_seconds(work: Callable[[], object], budget: float, device: torch.device | str) -> float:
    kind = torch.device(device).type

    def seconds_of_one() -> float:
        started = time.perf_counter()
        work()
        if kind == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    began = time.perf_counter()
    seconds_of_one()  # the first call allocates and picks a kernel
    while time.perf_counter() - began < _WARM_UP[kind]:
        seconds_of_one()
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < _REPEATS[kind] and (not times or time.perf_counter() - started < budget):
        times.append(seconds_of_one())
    return statistics.median(times)
