"""Top-k selection with exact tie-breaking, also at rank k.

Shapes: N queries, M documents, k ranks.
"""

from typing import NamedTuple

import numpy as np

from gemma4vec.errors import WorkError

NAN_SCORE = "a retrieval score is not a number: the model gives vectors that are not finite; check its weights"


class TopK(NamedTuple):
    """Result of a search, best first; rows with fewer than k results are padded.

    Attributes:
        indices: positions of documents, int64[N, k]; padded with -1.
        scores: float32[N, k]; padded with -inf.
    """

    indices: np.ndarray
    scores: np.ndarray


def sort_keys(scores_NM: np.ndarray, rank_M: np.ndarray) -> np.ndarray:
    """Return int64 keys whose descending order is (score descending, rank ascending).

    The bits of a float32, read as an integer, sort like the number once the magnitude bits of negative numbers are
    flipped; the rank takes the lower 32 bits. One integer selection then breaks every tie.
    """
    bits = (scores_NM + np.float32(0)).view(np.int32)  # + 0 turns -0.0 into 0.0, so that they tie
    ordered = bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))
    return (ordered.astype(np.int64) << 32) | (np.int64(0xFFFFFFFF) - rank_M)


def top_k(scores_NM: np.ndarray, k: int, rank: np.ndarray | None = None) -> TopK:
    """Return the k highest scores of each row; equal scores are ordered by ascending `rank`.

    Args:
        scores_NM: float32[N, M]; -inf marks a document that must not be returned.
        k: number of results; rows with fewer are padded with -1 and -inf.
        rank: int64[M], or int64[N, M], distinct within a row; by default the position itself.

    Raises:
        WorkError: a score is not a number.

    Example:
        >>> top_k(np.array([[0.1, 0.9, 0.9]], dtype=np.float32), k=2).indices
        array([[1, 2]])
    """
    scores_NM = np.ascontiguousarray(scores_NM, dtype=np.float32)
    rows, columns = scores_NM.shape
    if np.isnan(scores_NM).any():
        raise WorkError(NAN_SCORE)
    indices = np.full((rows, k), -1, dtype=np.int64)
    best = np.full((rows, k), -np.inf, dtype=np.float32)
    kept = min(k, columns)
    if kept == 0 or rows == 0:
        return TopK(indices, best)
    keys = sort_keys(scores_NM, np.arange(columns, dtype=np.int64) if rank is None else rank)
    if kept < columns:
        places = np.argpartition(keys, columns - kept, axis=1)[:, columns - kept :]
        keys = np.take_along_axis(keys, places, axis=1)
    else:
        places = np.broadcast_to(np.arange(columns), keys.shape)
    order = np.argsort(-keys, axis=1, kind="stable")
    places = np.take_along_axis(places, order, axis=1)
    values = np.take_along_axis(scores_NM, places, axis=1)
    indices[:, :kept] = np.where(np.isneginf(values), -1, places)
    best[:, :kept] = values
    return TopK(indices, best)


def top_k_of_row(scores_M: np.ndarray, k: int, rank_M: np.ndarray | None = None) -> TopK:
    """`top_k` of one long row, faster: scores below the k-th best are dropped before sorting.

    Args:
        scores_M: float32[M]; -inf marks a document that must not be returned.
        k: number of results.
        rank_M: int64[M]; by default the position itself.

    Returns:
        int64[k] and float32[k].

    Raises:
        WorkError: a score is not a number.
    """
    places = np.arange(len(scores_M))
    if 0 < k < len(scores_M):
        least = np.partition(scores_M, len(scores_M) - k)[
            len(scores_M) - k
        ]  # NaN sorts last, so it passes and top_k reports it
        places = np.flatnonzero(~(scores_M < least))
    found = top_k(scores_M[places][None], k, places if rank_M is None else rank_M[places])
    kept = np.where(found.indices[0] < 0, -1, places[found.indices[0]] if len(places) else -1)
    return TopK(kept, found.scores[0])


def descending_id_rank(ids: list[str]) -> np.ndarray:
    """Return each document id's rank in descending order, int64[M]: trec_eval breaks ties that way."""
    rank = np.empty(len(ids), dtype=np.int64)
    rank[sorted(range(len(ids)), key=ids.__getitem__, reverse=True)] = np.arange(len(ids))
    return rank
