"""Gather the vectors of all processes into each of them, with full gradients: negatives across devices.

Each process then computes the loss of all rows, divided by the number of processes. The total loss is the sum over
processes, and a vector's gradient is the sum of the gradients that the processes compute for it; the backward pass
returns that sum. A plain all-gather keeps the gradient of the process's own rows only.

Shapes: R rows of this process, N rows of all processes.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable


def gather_rows(rows_R: Tensor, counts: Sequence[int]) -> Tensor:
    """Concatenate the rows of all processes, `[N, ...]`, in rank order. Every process must call it.

    Args:
        rows_R: this process's rows, `[R, ...]`.
        counts: number of rows of each process; they may differ.
    """
    gathered: Tensor = _Gather.apply(rows_R, tuple(counts))
    return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows_R: Tensor, counts: tuple[int, ...]) -> Tensor:
        ctx.counts = counts
        padded = rows_R.new_zeros(max(counts), *rows_R.shape[1:])  # all_gather needs equal shapes
        padded[: len(rows_R)] = rows_R
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_N: Tensor) -> tuple[Tensor, None]:
        total_N = gradient_N.contiguous().clone()
        dist.all_reduce(total_N)
        return total_N.split(list(ctx.counts))[dist.get_rank()], None
