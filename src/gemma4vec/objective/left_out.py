"""How many candidates a contrast leaves out, since they may be right for a row: equal texts, and too similar ones.

Shapes: N rows, K hard negatives a row, D dimensions, M = N + N*K candidates, R rows of a block.
"""

import torch
from torch import Tensor

from gemma4vec.objective.false_negatives import FalseNegatives, TextHashes
from gemma4vec.objective.log_partition import MAX_SCORES, row_blocks


@torch.no_grad()
def left_out_share(
    queries_ND: Tensor,
    positives_ND: Tensor,
    negatives_NKD: Tensor | None = None,
    *,
    text_hashes: TextHashes | None = None,
    false_negative_margin: float | None = None,
    share_hard_negatives: bool = True,
    max_scores: int = MAX_SCORES,
) -> Tensor:
    """The share of candidates that `objective.nce.nce` excludes from the softmax of queries over passages, a scalar.

    Candidates of a row are the other rows' positives, its own hard negatives and, with `share_hard_negatives`, those
    of the others.

    Args:
        queries_ND, positives_ND, negatives_NKD: unit vectors `[N, D]`, `[N, D]`, `[N, K, D]`.
        text_hashes, false_negative_margin, share_hard_negatives: as in `nce`.
        max_scores: number of scores in memory at once.

    Example:
        >>> import torch
        >>> q = torch.eye(2)
        >>> left_out_share(q, q.flip(0), false_negative_margin=0.1)  # the other's positive is nearer than the own
        tensor(1.)
    """
    rows, device = len(queries_ND), queries_ND.device
    k = 0 if negatives_NKD is None else negatives_NKD.shape[1]
    candidates_MD = positives_ND
    if negatives_NKD is not None and k:
        candidates_MD = torch.cat([positives_ND, negatives_NKD.flatten(0, 1)])
    owner_M = torch.cat([torch.arange(rows), torch.arange(rows).repeat_interleave(k)]).to(device)
    is_positive_M = torch.arange(len(candidates_MD), device=device) < rows
    equal = None
    if text_hashes is not None:
        hashes_M = torch.cat([text_hashes.positives_N, text_hashes.negatives_NK.flatten()])
        equal = FalseNegatives(text_hashes.queries_N, text_hashes.positives_N, hashes_M, device)
    left_out, counted = torch.zeros((), device=device), torch.zeros((), device=device)
    for start, stop in row_blocks(rows, len(candidates_MD), max_scores):
        own_RM = owner_M[None, :] == torch.arange(start, stop, device=device)[:, None]
        shown_RM = ~own_RM if share_hard_negatives else ~own_RM & is_positive_M
        shown_RM = shown_RM | (own_RM & ~is_positive_M)
        out_RM = torch.zeros_like(own_RM)
        if equal is not None:
            out_RM |= equal.mask(start, stop)
        if false_negative_margin is not None:
            positive_R1 = (queries_ND[start:stop] * positives_ND[start:stop]).sum(-1, keepdim=True)
            out_RM |= queries_ND[start:stop] @ candidates_MD.T > positive_R1 + false_negative_margin
        left_out += (out_RM & shown_RM).sum()
        counted += shown_RM.sum()
    return left_out / counted.clamp(min=1)
