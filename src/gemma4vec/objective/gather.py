"""Vectors of all processes in each of them, with full gradients: negatives across devices.

Every process then computes the loss of all rows, over the number of processes. The loss is the sum of what they
compute, and a vector's gradient the sum of what they find for it, which is what comes back here; nothing is cut off at
the boundary between processes, as it is where only the own part of a gather has a gradient.

Shapes: R rows of this process, N rows of all.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable


def gather_rows(rows_R: Tensor, counts: Sequence[int]) -> Tensor:
    """The rows of all processes, `[N, ...]`, in the processes' order. All of them have to call it.

    Args:
        rows_R: `[R, ...]`, this process's.
        counts: how many rows each process has; they may differ.
    """
    gathered: Tensor = _Gather.apply(rows_R, tuple(counts))
    return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows_R: Tensor, counts: tuple[int, ...]) -> Tensor:
        ctx.counts = counts
        mine = rows_R.new_zeros(max(counts), *rows_R.shape[1:])  # what is gathered must be of one shape
        mine[: len(rows_R)] = rows_R
        parts = [torch.empty_like(mine) for _ in counts]
        dist.all_gather(parts, mine)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_N: Tensor) -> tuple[Tensor, None]:
        whole_N = gradient_N.contiguous().clone()
        dist.all_reduce(whole_N)
        return whole_N.split(list(ctx.counts))[dist.get_rank()], None
