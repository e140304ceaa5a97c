"""Measured rates are of the right order and quick to get."""

import time

import torch

from gemma4vec.machine.rates import matmul_rate, memory_bandwidth


def test_a_rate_counts_two_operations_per_product_and_sum() -> None:
    size, before = 512, time.perf_counter()
    rate = matmul_rate(torch.float32, size)
    elapsed = time.perf_counter() - before
    # Warm-up and at least one measured product happened within `elapsed`.
    assert rate * 1e9 >= 2 * size**3 / elapsed
    assert rate < 1e6  # no CPU does 1,000 TFLOP/s


def test_memory_is_measured() -> None:
    assert 0.1 < memory_bandwidth() < 5_000
