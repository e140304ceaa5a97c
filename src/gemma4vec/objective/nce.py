"""InfoNCE over in-batch and hard negatives.

Shapes: N rows of the batch, K hard negatives a row, D dimensions, M = N + N*K candidates.

van den Oord et al. 2018 (arXiv:1807.03748), eq. 4, with cosine similarity over a temperature, as in
sentence-transformers' MultipleNegativesRankingLoss (scale = 1 / temperature).
"""

import torch
from torch import Tensor
from torch.nn import functional


def info_nce(
    queries_ND: Tensor,
    positives_ND: Tensor,
    negatives_NKD: Tensor | None = None,
    *,
    temperature: float,
    share_hard_negatives: bool = True,
    false_negative_NM: Tensor | None = None,
) -> Tensor:
    """Mean over rows of the cross-entropy of each query's own positive among its candidates.

    Candidates are all positives of the batch, then the hard negatives row after row: all rows' with
    `share_hard_negatives`, else only the row's own.

    Args:
        queries_ND, positives_ND, negatives_NKD: unit vectors.
        temperature: similarities are divided by it.
        false_negative_NM: true where a candidate must not count against a query; it then has exactly no gradient from
            that query. The row's own positive always counts.

    Returns:
        A scalar in the type of the vectors (fp32 at least).
    """
    candidates_MD = positives_ND
    rows = len(queries_ND)
    if negatives_NKD is not None and negatives_NKD.shape[1]:
        candidates_MD = torch.cat([positives_ND, negatives_NKD.flatten(0, 1)])
    logits_NM = queries_ND @ candidates_MD.T / temperature
    own_N = torch.arange(rows, device=logits_NM.device)
    excluded_NM = torch.zeros_like(logits_NM, dtype=torch.bool)
    if false_negative_NM is not None:
        excluded_NM |= false_negative_NM
    if not share_hard_negatives and len(candidates_MD) > rows:
        per_row = (len(candidates_MD) - rows) // rows
        owner_M = torch.arange(rows, device=logits_NM.device).repeat_interleave(per_row)
        excluded_NM[:, rows:] |= owner_M[None, :] != own_N[:, None]
    excluded_NM[own_N, own_N] = False
    return functional.cross_entropy(logits_NM.masked_fill(excluded_NM, float("-inf")), own_N)


def duplicate_mask(query_keys_N: Tensor, positive_keys_N: Tensor, negative_keys_NK: Tensor | None = None) -> Tensor:
    """`[N, M]`, true where a candidate is known to be no negative, by hash of its text.

    A candidate is excluded for a query when its text is that of a positive of a row with the same query (the own row
    included), also where it stands as a hard negative, or when it is the query's own text.
    """
    same_query_NN = query_keys_N[:, None] == query_keys_N[None, :]
    candidate_keys_M = positive_keys_N
    if negative_keys_NK is not None and negative_keys_NK.shape[1]:
        candidate_keys_M = torch.cat([positive_keys_N, negative_keys_NK.flatten()])
    same_text_NM = positive_keys_N[:, None] == candidate_keys_M[None, :]
    answers_NM = (same_query_NN.float() @ same_text_NM.float()) > 0
    mask_NM = answers_NM | (candidate_keys_M[None, :] == query_keys_N[:, None])
    mask_NM.fill_diagonal_(False)
    return mask_NM
