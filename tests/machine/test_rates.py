"""Measured rates are of the right order and quick to get."""

import time

import pytest
import torch

from gemma4vec.machine import rates
from gemma4vec.machine.rates import matmul_rate, memory_bandwidth


def test_a_rate_counts_two_operations_per_product_and_sum() -> None:
    size, before = 512, time.perf_counter()
    rate = matmul_rate(torch.float32, size)
    elapsed = time.perf_counter() - before
    # Warm-up and at least one measured product happened within `elapsed`.
    assert rate * 1e9 >= 2 * size**3 / elapsed
    assert rate < 1e6  # no CPU does 1,000 TFLOP/s


def test_a_slow_product_is_measured_on_smaller_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of bf16 on a CPU without it: a product of 1,024 rows takes a minute there."""
    clock, sizes = [0.0], list[int]()
    random = torch.randn

    class Slow(torch.Tensor):
        def __matmul__(self, other: torch.Tensor) -> torch.Tensor:
            sizes.append(len(self))
            clock[0] += 2 * len(self) ** 3 / 1e7  # 0.01 GFLOP/s
            return other

    monkeypatch.setattr(rates.torch, "randn", lambda *shape, **how: random(*shape, **how).as_subclass(Slow))
    monkeypatch.setattr(rates.time, "perf_counter", lambda: clock[0])
    assert matmul_rate(torch.float32) == pytest.approx(0.01)
    assert sizes[0] == 64 and max(sizes) == 64 and clock[0] < 1
    sizes.clear()
    matmul_rate(torch.float32, seconds=5)
    assert max(sizes) == 256


def test_a_full_gpu_is_measured_with_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[int] = []

    def ones(count: int, device: str) -> torch.Tensor:
        copied.append(4 * count)
        return torch.zeros(8)

    monkeypatch.setattr(rates.torch, "ones", ones)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    for free in (400_000_000, 80_000_000_000):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 80_000_000_000))
        assert memory_bandwidth(device="cuda") > 0
    assert copied == [100_000_000, 2 << 30]


def test_memory_is_measured() -> None:
    assert 0.1 < memory_bandwidth() < 5_000
