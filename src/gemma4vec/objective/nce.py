"""InfoNCE with in-batch and hard negatives: plain (`info_nce`), with options (`nce`), of two views (`self_contrast`).

Shapes: N rows of the batch, K hard negatives a row, D dimensions, M = N + N*K candidates, R rows of a block.
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
    """Plain InfoNCE: the cross-entropy of each query's own positive among its candidates, mean over rows.

    Paper: van den Oord et al. 2018 (arXiv:1807.03748), eq. 4, with cosine similarity divided by a temperature.

    Inputs:
        | tensor | shape | content |
        |---|---|---|
        | `queries_ND` | `[N, D]` float | unit vectors of the queries |
        | `positives_ND` | `[N, D]` float | unit vectors of their positives |
        | `negatives_NKD` | `[N, K, D]` float, or None | unit vectors of hard negatives |
        | `false_negative_NM` | `[N, M]` bool, or None | true where a candidate is excluded for a query |

    Candidates are ordered: the N positives, then the hard negatives of row 0, of row 1, ...

    Args:
        queries_ND, positives_ND, negatives_NKD: see the table.
        temperature: similarities are divided by it, above 0.
        share_hard_negatives: use all rows' hard negatives as candidates; otherwise only the row's own.
        false_negative_NM: excluded candidates get exactly no gradient from that query. A row's own positive is never
            excluded.

    Returns:
        A scalar in the dtype of the vectors (fp32 at least).

    Relations:
        Same as sentence-transformers' MultipleNegativesRankingLoss with `scale = 1 / temperature`. It holds the whole
        score matrix; `nce` computes the same in blocks and adds options.

    Example:
        >>> import torch
        >>> info_nce(torch.eye(2), torch.eye(2), temperature=0.05) < 1e-6
        tensor(True)
        >>> round(info_nce(torch.ones(2, 1), torch.ones(2, 1), temperature=0.05).item(), 4)  # log 2
        0.6931
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
    """Mark the candidates that are known false negatives, by the hashes of their texts: bool `[N, M]`.

    A candidate is marked for a query if its text is the query itself or the positive of any row with the same query,
    whether it is a candidate as a positive or as a hard negative. A row's own positive is never marked. It holds
    several `[N, M]` matrices; `FalseNegatives` computes the same in blocks.

    Inputs:
        | tensor | shape | content |
        |---|---|---|
        | `query_hashes_N` | `[N]` int64 | hash of each query |
        | `positive_hashes_N` | `[N]` int64 | hash of each positive |
        | `negative_hashes_NK` | `[N, K]` int64, or None | hash of each hard negative |

    Example:
        >>> import torch
        >>> false_negative_mask(torch.tensor([1, 1]), torch.tensor([7, 8]))  # one query with two known answers
        tensor([[False,  True],
                [ True, False]])
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
    decoupled: bool = False,
    text_hashes: TextHashes | None = None,
    row_weights_N: Tensor | None = None,
    max_scores: int = MAX_SCORES,
) -> Tensor:
    """InfoNCE as EmbeddingGemma defines it, with options, in memory that does not grow with N * M.

    Paper: EmbeddingGemma (arXiv:2509.20354, section 2.2). For row n with positive p, hard negatives h and candidates c:

        loss_n = -log( exp(q.p / t) / ( exp(q.p / t) + sum_h w_h exp(q.h / t) + sum_c exp(q.c / t) ) )
        w_h = exp(hardness * stop_gradient(q.h))

    Inputs:
        | tensor | shape | content |
        |---|---|---|
        | `queries_ND` | `[N, D]` float | unit vectors of the queries |
        | `positives_ND` | `[N, D]` float | unit vectors of their positives |
        | `negatives_NKD` | `[N, K, D]` float, or None | unit vectors of hard negatives |
        | `row_weights_N` | `[N]` float, or None | weight of each row's loss |

    Args:
        queries_ND, positives_ND, negatives_NKD: see the table.
        temperature: similarities are divided by it, above 0; a scalar tensor with a gradient is learned.
        share_hard_negatives: use the other rows' hard negatives as candidates too.
        hardness: weight of a row's own hard negatives, see above (Lan et al. 2025, arXiv:2503.04812, eq. 5;
            EmbeddingGemma uses 5.0). 0 weighs them like all other candidates. No effect without hard negatives.
        query_query: add the other rows' queries to each query's candidates.
        passage_passage: add the similarities of the other rows' passages to each row's positive to the same softmax
            (Li et al. 2023, arXiv:2308.03281, section 3.3).
        symmetric: average with the loss of each positive's query among all queries.
        false_negative_margin: exclude candidates whose similarity exceeds the positive's by more than this.
        decoupled: leave the positive out of its own denominator (Yeh et al. 2022, arXiv:2110.06848, eq. 6), as
            EmbeddingGemma's formula says when it is read to the letter. A row without candidates has loss 0.
        text_hashes: exclude the candidates that `FalseNegatives` marks.
        row_weights_N: None weighs each row 1. A row of weight 0 remains a candidate of the others.
        max_scores: number of scores in memory at once.

    Returns:
        A scalar, the mean over rows. Excluded candidates get exactly no gradient from that row.

    Requirements:
        Negatives come from the batch: the larger N, the harder the task. More than fits into memory needs GradCache.

    Relations:
        With `hardness=0` and the other options off it equals `info_nce` with `false_negative_mask`; a batch with at
        most `max_scores` scores is computed by that function. `matryoshka.matryoshka` sums it over prefixes; a soft
        alternative with a teacher's scores is `matching.score_distillation`.

    Example:
        >>> import torch
        >>> q, p, h = torch.eye(2), torch.eye(2), torch.eye(2).flip(0)[:, None]
        >>> round(nce(q, p, h, temperature=1.0, hardness=0.0).item(), 4)  # one candidate is as near as the positive
        1.0064
        >>> round(nce(q, p, temperature=1.0).item(), 4)
        0.3133
    """
    rows = len(queries_ND)
    if negatives_NKD is None or not negatives_NKD.shape[1]:
        negatives_NKD = queries_ND.new_empty(rows, 0, queries_ND.shape[1])
    k = negatives_NKD.shape[1]
    changed = (hardness and k) or query_query or passage_passage or symmetric or false_negative_margin is not None
    changed = changed or decoupled
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
    loss_of = _without_first if decoupled else _first_of
    loss_N = loss_of(positive_N * inverse, torch.cat([own_logits_NK, torch.stack(parts, dim=1)], dim=1))
    if symmetric:
        back_N = log_partition(positives_ND, queries_ND, inverse, excluded=no_queries, **among)
        loss_N = (loss_N + loss_of(positive_N * inverse, back_N[:, None])) / 2
    return row_mean(loss_N, row_weights_N)


def self_contrast(
    views_ND: Tensor,
    other_views_ND: Tensor,
    *,
    temperature: float | Tensor,
    text_hashes_N: Tensor | None = None,
    row_weights_N: Tensor | None = None,
) -> Tensor:
    """Contrast two dropout views of the same texts: each view finds the other among the batch's, in both directions.

    Paper: SimCSE (Gao et al. 2021, arXiv:2104.08821, section 3); Gemma-Embed's first phase.

    Inputs:
        | tensor | shape | content |
        |---|---|---|
        | `views_ND` | `[N, D]` float | unit vectors of N texts |
        | `other_views_ND` | `[N, D]` float | unit vectors of the same texts, encoded again with other dropout |
        | `text_hashes_N` | `[N]` int64, or None | hash of each text; equal texts are no negatives of each other |
        | `row_weights_N` | `[N]` float, or None | weight of each text's loss |

    Args:
        views_ND, other_views_ND, text_hashes_N, row_weights_N: see the table.
        temperature: similarities are divided by it, above 0; a scalar tensor with a gradient is learned.

    Returns:
        A scalar.

    Requirements:
        The model needs dropout: without it both views are equal, and the loss teaches uniformity alone.

    Relations:
        `nce` with `symmetric=True` and no hard negatives. Gemma-Embed's second phase, paraphrase triplets, is `nce`
        with one hard negative a row.

    Example:
        >>> import torch
        >>> self_contrast(torch.eye(2), torch.eye(2), temperature=0.05) < 1e-6
        tensor(True)
    """
    both = None
    if text_hashes_N is not None:
        both = TextHashes(text_hashes_N, text_hashes_N, text_hashes_N.new_empty(len(text_hashes_N), 0))
    return nce(
        views_ND, other_views_ND, temperature=temperature, symmetric=True, text_hashes=both, row_weights_N=row_weights_N
    )


def _first_of(first_N: Tensor, others_NC: Tensor) -> Tensor:
    """Cross-entropy of the first logit against the others, `[N]`; 0 if all others are minus infinity."""
    logits_NC = torch.cat([first_N[:, None], others_NC], dim=1)
    return functional.cross_entropy(logits_NC, first_N.new_zeros(len(first_N), dtype=torch.long), reduction="none")


def _without_first(first_N: Tensor, others_NC: Tensor) -> Tensor:
    """Log-sum of the others' exponentials less the first logit, `[N]`; 0 if all others are minus infinity."""
    alone_N = torch.isneginf(others_NC).all(dim=1)
    others_NC = others_NC.masked_fill(alone_N[:, None], 0.0)  # no NaN in the gradient of rows that do not count
    return (torch.logsumexp(others_NC, dim=1) - first_N).masked_fill(alone_N, 0.0)


def _excluded(
    text_hashes: TextHashes | None, rows: int, shared: int, device: torch.device
) -> tuple[ExclusionMask, ExclusionMask]:
    """Masks of excluded candidates among all passages and among all queries: the row's own, and false negatives.

    The row's own positive and hard negatives are already in the softmax, outside these blocks.
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
    """Bool `[R, M]`: true for the row's own positive and its own hard negatives."""
    own_RM = torch.zeros(stop - start, rows * (1 + shared), dtype=torch.bool, device=device)
    at_R = torch.arange(start, stop, device=device)
    own_RM[at_R - start, at_R] = True
    for column in range(shared):
        own_RM[at_R - start, rows + at_R * shared + column] = True
    return own_RM


def _own_excluded(
    own_NK: Tensor, max_similarity_N: Tensor | None, text_hashes: TextHashes | None, max_scores: int
) -> Tensor:
    """Bool `[N, K]`: true for each of the row's own hard negatives that is excluded."""
    excluded_NK = torch.zeros_like(own_NK, dtype=torch.bool)
    if max_similarity_N is not None:
        excluded_NK |= own_NK.detach() > max_similarity_N[:, None]
    if text_hashes is not None and own_NK.shape[1]:
        own = FalseNegatives(
            text_hashes.queries_N, text_hashes.positives_N, text_hashes.negatives_NK.flatten(), own_NK.device
        )
        ids_NK = own.candidates_M.view_as(text_hashes.negatives_NK)
        for start, stop in row_blocks(len(own_NK), own.num_texts, max_scores):
            excluded_NK[start:stop] |= own.text_mask(start, stop).gather(1, ids_NK[start:stop])
    return excluded_NK
