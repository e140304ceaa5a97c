"""The log of a softmax's denominator, a block of rows at a time: the score matrix is never whole in memory.

The forward pass keeps one number a row; the backward pass computes each block's scores again, as FlashAttention does
(Dao et al. 2022, arXiv:2205.14135, section 3.1).

Shapes: N rows, M candidates, D dimensions, R rows of a block.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Given the first row of a block and the first behind it: `[R, M]`, true where a candidate does not count.
ExclusionMask = Callable[[int, int], Tensor]
# Scores of a block: 8 MB in fp32, and as much again for what is made of them.
MAX_SCORES = 2**21


def log_partition(
    left_ND: Tensor,
    right_MD: Tensor,
    inverse_temperature: Tensor,
    *,
    excluded: ExclusionMask | None = None,
    max_similarity_N: Tensor | None = None,
    max_scores: int = MAX_SCORES,
) -> Tensor:
    """`log(sum over m of exp(left_n . right_m * inverse_temperature))` for each row: `[N]`.

    Args:
        left_ND, right_MD: vectors.
        inverse_temperature: a scalar; it may be trained.
        excluded: candidates that do not count, block by block; they get exactly no gradient.
        max_similarity_N: candidates above this similarity do not count either; no gradient goes into it.
        max_scores: scores that are in memory at once (one row's at least).

    Returns:
        Minus infinity for a row none of whose candidates count.
    """
    found: Tensor = _LogPartition.apply(left_ND, right_MD, inverse_temperature, excluded, max_similarity_N, max_scores)
    return found


def row_blocks(rows: int, columns: int, max_scores: int) -> Iterator[tuple[int, int]]:
    """First row of each block of at most `max_scores` cells, and the first row behind it."""
    size = max(1, max_scores // max(1, columns))
    return ((start, min(start + size, rows)) for start in range(0, rows, size))


class _LogPartition(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        left_ND: Tensor,
        right_MD: Tensor,
        inverse: Tensor,
        excluded: ExclusionMask | None,
        max_similarity_N: Tensor | None,
        max_scores: int,
    ) -> Tensor:
        ctx.excluded, ctx.max_scores = excluded, max_scores
        log_N = left_ND.new_empty(len(left_ND))
        for start, stop in row_blocks(len(left_ND), len(right_MD), max_scores):
            logits_RM = _logits(left_ND, right_MD, inverse, excluded, max_similarity_N, start, stop)
            log_N[start:stop] = logits_RM.logsumexp(dim=1)
        ctx.save_for_backward(left_ND, right_MD, inverse, max_similarity_N, log_N)
        return log_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_N: Tensor) -> tuple[Tensor | None, ...]:
        left_ND, right_MD, inverse, max_similarity_N, log_N = ctx.saved_tensors
        # A row without candidates has minus infinity everywhere; with 0 in its place all its shares are 0.
        finite_N = log_N.masked_fill(log_N.isneginf(), 0.0)
        to_left_ND, to_right_MD = torch.zeros_like(left_ND), torch.zeros_like(right_MD)
        for start, stop in row_blocks(len(left_ND), len(right_MD), ctx.max_scores):
            shares_RM = _logits(left_ND, right_MD, inverse, ctx.excluded, max_similarity_N, start, stop)
            shares_RM.sub_(finite_N[start:stop, None]).exp_().mul_(gradient_N[start:stop, None])
            to_left_ND[start:stop] = shares_RM @ right_MD
            to_right_MD.addmm_(shares_RM.T, left_ND[start:stop])
        # The derivative by the inverse temperature weighs similarities, which are products with the left vectors.
        to_inverse = (to_left_ND * left_ND).sum() if ctx.needs_input_grad[2] else None
        return to_left_ND.mul_(inverse), to_right_MD.mul_(inverse), to_inverse, None, None, None


def _logits(
    left_ND: Tensor,
    right_MD: Tensor,
    inverse: Tensor,
    excluded: ExclusionMask | None,
    max_similarity_N: Tensor | None,
    start: int,
    stop: int,
) -> Tensor:
    similarities_RM = left_ND[start:stop] @ right_MD.T
    if max_similarity_N is not None:
        above_RM = similarities_RM > max_similarity_N[start:stop, None]
        similarities_RM.masked_fill_(above_RM, float("-inf"))
    if excluded is not None:
        similarities_RM.masked_fill_(excluded(start, stop), float("-inf"))
    return similarities_RM.mul_(inverse)
