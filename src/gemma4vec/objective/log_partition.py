"""Log-partition function (log of the softmax denominator), computed in blocks of rows.

The whole score matrix is never in memory. The forward pass keeps one number a row; the backward pass recomputes each
block's scores, as FlashAttention does (Dao et al. 2022, arXiv:2205.14135, section 3.1).

Shapes: N rows, M candidates, D dimensions, R rows of a block.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# (first row of a block, row after its last) -> bool `[R, M]`, true where a candidate is excluded.
ExclusionMask = Callable[[int, int], Tensor]
# Scores in a block: 8 MB in fp32, plus the same for intermediate results.
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
    """Compute `log(sum over m of exp(left_n . right_m * inverse_temperature))` for each row n: `[N]`.

    Args:
        left_ND: vectors of the rows.
        right_MD: vectors of the candidates.
        inverse_temperature: a scalar tensor; it may require a gradient.
        excluded: mask of excluded candidates, called block by block; they get exactly no gradient.
        max_similarity_N: candidates above this similarity are excluded too; it gets no gradient.
        max_scores: number of scores in memory at once; a block has at least one row.

    Returns:
        `[N]`; minus infinity for a row whose candidates are all excluded.

    Example:
        >>> import torch
        >>> left, right = torch.eye(2), torch.eye(2)
        >>> torch.allclose(log_partition(left, right, torch.tensor(1.0)), (left @ right.T).logsumexp(1))
        True
    """
    found: Tensor = _LogPartition.apply(left_ND, right_MD, inverse_temperature, excluded, max_similarity_N, max_scores)
    return found


def row_blocks(rows: int, columns: int, max_scores: int) -> Iterator[tuple[int, int]]:
    """Yield (first row, row after the last) of blocks with at most `max_scores` cells, but at least one row."""
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
        # A row without candidates has log 0 = -inf, and -inf - -inf is NaN; with 0 instead its softmax is all 0.
        finite_N = log_N.masked_fill(log_N.isneginf(), 0.0)
        to_left_ND, to_right_MD = torch.zeros_like(left_ND), torch.zeros_like(right_MD)
        for start, stop in row_blocks(len(left_ND), len(right_MD), ctx.max_scores):
            shares_RM = _logits(left_ND, right_MD, inverse, ctx.excluded, max_similarity_N, start, stop)
            shares_RM.sub_(finite_N[start:stop, None]).exp_().mul_(gradient_N[start:stop, None])
            to_left_ND[start:stop] = shares_RM @ right_MD
            to_right_MD.addmm_(shares_RM.T, left_ND[start:stop])
        # d/d(inverse temperature) is the softmax-weighted similarity, which to_left_ND already holds times left_ND.
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
