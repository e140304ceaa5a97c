"""InfoNCE over in-batch and hard negatives: plain (`info_nce`), and with all that makes contrast strong (`nce`).

Shapes: N rows of the batch, K hard negatives a row, D dimensions, M = N + N*K candidates, R rows of a block.

van den Oord et al. 2018 (arXiv:1807.03748), eq. 4, with cosine similarity over a temperature, as in
sentence-transformers' MultipleNegativesRankingLoss (scale = 1 / temperature).
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from gemma4vec.objective.false_negatives import FalseNegatives, TextHashes
from gemma4vec.objective.log_partition import MAX_SCORES, ExclusionMask, log_partition, row_blocks
from gemma4vec.objective.row_mean import row_mean


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


def false_negative_mask(
    query_hashes_N: Tensor, positive_hashes_N: Tensor, negative_hashes_NK: Tensor | None = None
) -> Tensor:
    """`[N, M]`, true where a candidate is known to be no negative, by hash of its text.

    A candidate is excluded for a query when its text is that of a positive of a row with the same query (the own row
    included), also where it stands as a hard negative, or when it is the query's own text.
    """
    same_query_NN = query_hashes_N[:, None] == query_hashes_N[None, :]
    candidate_hashes_M = positive_hashes_N
    if negative_hashes_NK is not None and negative_hashes_NK.shape[1]:
        candidate_hashes_M = torch.cat([positive_hashes_N, negative_hashes_NK.flatten()])
    same_text_NM = positive_hashes_N[:, None] == candidate_hashes_M[None, :]
    answers_NM = (same_query_NN.float() @ same_text_NM.float()) > 0
    mask_NM = answers_NM | (candidate_hashes_M[None, :] == query_hashes_N[:, None])
    mask_NM.fill_diagonal_(False)
    return mask_NM


def nce(
    queries_ND: Tensor,
    positives_ND: Tensor,
    negatives_NKD: Tensor | None = None,
    *,
    temperature: float | Tensor,
    share_hard_negatives: bool = True,
    hardness: float = 5.0,
    query_query: bool = False,
    passage_passage: bool = False,
    symmetric: bool = False,
    false_negative_margin: float | None = None,
    text_hashes: TextHashes | None = None,
    row_weights_N: Tensor | None = None,
    max_scores: int = MAX_SCORES,
) -> Tensor:
    """InfoNCE as EmbeddingGemma defines it (arXiv:2509.20354, section 2.2), in memory that does not grow with N * M.

    With `hardness` 0 and all other options off it equals `info_nce` with `false_negative_mask`; small batches
    (no more than `max_scores` scores) go through that function, whole.

    Args:
        queries_ND, positives_ND, negatives_NKD: unit vectors.
        temperature: similarities are divided by it; a scalar with a gradient is learned.
        share_hard_negatives: every row also sees the other rows' hard negatives.
        hardness: alpha. The row's own hard negatives weigh exp(alpha * similarity), the similarity without gradient
            (Lan et al. 2025, arXiv:2503.04812, eq. 5; EmbeddingGemma has 5.0). 0: all weigh the same. Without hard
            negatives it means nothing.
        query_query: other rows' queries are candidates of each query too, in the same softmax.
        passage_passage: other rows' passages are candidates of each row's positive too, in the same softmax (Li et al.
            2023, arXiv:2308.03281, section 3.3).
        symmetric: the mean of this and of the loss that looks for each positive's query among all queries.
        false_negative_margin: a candidate whose similarity is above that of query and positive by more than this does
            not count.
        text_hashes: hashes of the texts; a candidate known as a false negative does not count (see `FalseNegatives`).
        row_weights_N: factor of each row's loss; every row stays a candidate of the others. None: 1 each.
        max_scores: scores that are in memory at once.

    Returns:
        A scalar, the mean over rows. Candidates that do not count have exactly no gradient from that row.
    """
    rows = len(queries_ND)
    if negatives_NKD is None or not negatives_NKD.shape[1]:
        negatives_NKD = queries_ND.new_empty(rows, 0, queries_ND.shape[1])
    k = negatives_NKD.shape[1]
    changed = (hardness and k) or query_query or passage_passage or symmetric or false_negative_margin is not None
    if (
        not changed
        and row_weights_N is None
        and isinstance(temperature, float | int)
        and rows * rows * (1 + k) <= max_scores
    ):
        mask_NM = None
        if text_hashes is not None:
            here = text_hashes.to(queries_ND.device)
            mask_NM = false_negative_mask(here.queries_N, here.positives_N, here.negatives_NK)
        return info_nce(
            queries_ND,
            positives_ND,
            negatives_NKD,
            temperature=temperature,
            share_hard_negatives=share_hard_negatives,
            false_negative_NM=mask_NM,
        )
    if not isinstance(temperature, Tensor):
        temperature = queries_ND.new_full((), temperature)
    inverse = 1.0 / temperature.to(queries_ND)
    positive_N = (queries_ND * positives_ND).sum(-1)
    max_similarity_N = None if false_negative_margin is None else positive_N.detach() + false_negative_margin
    shared = k if share_hard_negatives else 0
    candidates_MD = torch.cat([positives_ND, negatives_NKD[:, :shared].flatten(0, 1)])
    no_passages, no_queries = _excluded(text_hashes, rows, shared, queries_ND.device)

    own_NK = torch.einsum("nd,nkd->nk", queries_ND, negatives_NKD)
    own_logits_NK = own_NK * inverse + hardness * own_NK.detach()
    own_logits_NK = own_logits_NK.masked_fill(
        _own_excluded(own_NK, max_similarity_N, text_hashes, max_scores), float("-inf")
    )
    among: dict[str, Any] = {"max_similarity_N": max_similarity_N, "max_scores": max_scores}
    parts = [log_partition(queries_ND, candidates_MD, inverse, excluded=no_passages, **among)]
    if query_query:
        parts.append(log_partition(queries_ND, queries_ND, inverse, excluded=no_queries, **among))
    if passage_passage:
        parts.append(log_partition(positives_ND, candidates_MD, inverse, excluded=no_passages, **among))
    loss_N = _first_of(positive_N * inverse, torch.cat([own_logits_NK, torch.stack(parts, dim=1)], dim=1))
    if symmetric:
        back_N = log_partition(positives_ND, queries_ND, inverse, excluded=no_queries, **among)
        loss_N = (loss_N + _first_of(positive_N * inverse, back_N[:, None])) / 2
    return row_mean(loss_N, row_weights_N)


def self_contrast(
    views_ND: Tensor,
    other_views_ND: Tensor,
    *,
    temperature: float | Tensor,
    text_hashes_N: Tensor | None = None,
    row_weights_N: Tensor | None = None,
) -> Tensor:
    """Two views of one text find each other among the batch's, both ways; the views differ by dropout alone.

    SimCSE (Gao et al. 2021, arXiv:2104.08821, section 3) and Gemma-Embed's first phase. `text_hashes_N` are the
    hashes of the texts, `row_weights_N` the weights of their losses. Its second phase, paraphrase triplets, is `nce`
    with one hard negative a row.
    """
    both = None
    if text_hashes_N is not None:
        both = TextHashes(text_hashes_N, text_hashes_N, text_hashes_N.new_empty(len(text_hashes_N), 0))
    return nce(
        views_ND, other_views_ND, temperature=temperature, symmetric=True, text_hashes=both, row_weights_N=row_weights_N
    )


def _first_of(first_N: Tensor, others_NC: Tensor) -> Tensor:
    """Each row's cross-entropy of the first against the others, `[N]`; 0 where these are all minus infinity."""
    logits_NC = torch.cat([first_N[:, None], others_NC], dim=1)
    return functional.cross_entropy(logits_NC, first_N.new_zeros(len(first_N), dtype=torch.long), reduction="none")


def _excluded(
    text_hashes: TextHashes | None, rows: int, shared: int, device: torch.device
) -> tuple[ExclusionMask, ExclusionMask]:
    """What does not count among all passages, and among all queries: the row's own, and what is no negative.

    The row's own positive and hard negatives are in the softmax already, outside these blocks.
    """
    passages = queries = None
    if text_hashes is not None:
        candidates_M = torch.cat([text_hashes.positives_N, text_hashes.negatives_NK[:, :shared].flatten()])
        passages = FalseNegatives(text_hashes.queries_N, text_hashes.positives_N, candidates_M, device)
        queries = FalseNegatives(text_hashes.positives_N, text_hashes.queries_N, text_hashes.queries_N, device)

    def no_passages(start: int, stop: int) -> Tensor:
        own_RM = _own_columns(start, stop, rows, shared, device)
        return own_RM if passages is None else own_RM | passages.mask(start, stop)

    def no_queries(start: int, stop: int) -> Tensor:
        own_RN = _own_columns(start, stop, rows, 0, device)
        return own_RN if queries is None else own_RN | queries.mask(start, stop)

    return no_passages, no_queries


def _own_columns(start: int, stop: int, rows: int, shared: int, device: torch.device) -> Tensor:
    """`[R, M]`, true where the candidate is the row's own positive or one of its own hard negatives."""
    own_RM = torch.zeros(stop - start, rows * (1 + shared), dtype=torch.bool, device=device)
    at_R = torch.arange(start, stop, device=device)
    own_RM[at_R - start, at_R] = True
    for column in range(shared):
        own_RM[at_R - start, rows + at_R * shared + column] = True
    return own_RM


def _own_excluded(
    own_NK: Tensor, max_similarity_N: Tensor | None, text_hashes: TextHashes | None, max_scores: int
) -> Tensor:
    """Which of the row's own hard negatives do not count."""
    excluded_NK = torch.zeros_like(own_NK, dtype=torch.bool)
    if max_similarity_N is not None:
        excluded_NK |= own_NK.detach() > max_similarity_N[:, None]
    if text_hashes is not None and own_NK.shape[1]:
        own = FalseNegatives(
            text_hashes.queries_N, text_hashes.positives_N, text_hashes.negatives_NK.flatten(), own_NK.device
        )
        ids_NK = own.candidates_M.view_as(text_hashes.negatives_NK)
        for start, stop in row_blocks(len(own_NK), own.texts, max_scores):
            excluded_NK[start:stop] |= own.known(start, stop).gather(1, ids_NK[start:stop])
    return excluded_NK
