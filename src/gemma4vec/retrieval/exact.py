"""Exact nearest neighbours by inner product, in blocks, so that memory stays bounded.

Shapes: N queries, M documents, D dimensions, k places.
"""

import numpy as np

from gemma4vec.errors import InputError, WorkError
from gemma4vec.retrieval.top_k import NOT_A_NUMBER, Found

QUERIES_AT_ONCE = 256
FIRST_BLOCK = 1_024


def search(
    queries_ND: np.ndarray,
    documents_MD: np.ndarray,
    k: int,
    block: int = 16_384,
    descending_id_rank: np.ndarray | None = None,
) -> Found:
    """The k documents with the highest inner product with each query, in fp32.

    Args:
        queries_ND: float[N, D].
        documents_MD: float[M, D]; a memory-mapped array is read one block at a time.
        k: how many documents to return; -1 and -inf pad the rows where M < k.
        block: documents scored at once; 256 queries are scored together, so a block takes 256 x block x 4 bytes.
        descending_id_rank: int64[M], see `top_k.descending_id_rank`: equal scores are ordered by it, also at the cut k.
            Without it the earlier document wins.

    Raises:
        InputError: the dimensions differ, or k is below 1.
        WorkError: a score is not a number.
    """
    if k < 1:
        raise InputError(f"search: k is {k}; ask for at least one document")
    if queries_ND.ndim != 2 or documents_MD.ndim != 2 or queries_ND.shape[1] != documents_MD.shape[1]:
        raise InputError(
            f"search: queries {queries_ND.shape} and documents {documents_MD.shape} do not fit; "
            "embed both with one model and one dimension"
        )
    count = len(documents_MD)
    rank = np.arange(count, dtype=np.int64) if descending_id_rank is None else np.asarray(descending_id_rank, np.int64)
    parts = [
        _search_rows(queries_ND[start : start + QUERIES_AT_ONCE], documents_MD, k, block, rank)
        for start in range(0, len(queries_ND), QUERIES_AT_ONCE)
    ]
    if not parts:
        return Found(np.empty((0, k), np.int64), np.empty((0, k), np.float32))
    return Found(np.concatenate([part.indices for part in parts]), np.concatenate([part.scores for part in parts]))


class _Best:
    """The best k so far of each of N queries, and candidates that may be better.

    A document can only be among the best if its score reaches the query's k-th best so far. Few do after the first
    block, so that one comparison per score is nearly all that is added to the matrix product.
    """

    def __init__(self, rows: int, k: int, rank_M: np.ndarray) -> None:
        self.rows, self.k, self.rank_M = rows, k, rank_M
        self.least_N = np.full(rows, -np.inf, dtype=np.float32)
        self.row_C = np.empty(0, dtype=np.int64)
        self.place_C = np.empty(0, dtype=np.int64)
        self.score_C = np.empty(0, dtype=np.float32)

    def add(self, scores_NB: np.ndarray, start: int) -> None:
        """Let the documents from `start` on compete, with their scores."""
        if np.isnan(scores_NB.min()):
            raise WorkError(NOT_A_NUMBER)
        row_C, column_C = np.divmod(np.flatnonzero(scores_NB >= self.least_N[:, None]), scores_NB.shape[1])
        self.row_C = np.concatenate([self.row_C, row_C])
        self.place_C = np.concatenate([self.place_C, column_C + start])
        self.score_C = np.concatenate([self.score_C, scores_NB[row_C, column_C]])
        if len(self.row_C) > 2 * self.k * self.rows:
            self._compete()

    def found(self) -> Found:
        """The best k in order; -1 and -inf where there are fewer."""
        self._compete()
        indices = np.full((self.rows, self.k), -1, dtype=np.int64)
        scores = np.full((self.rows, self.k), -np.inf, dtype=np.float32)
        column_C = self._places_in_row()
        indices[self.row_C, column_C] = self.place_C
        scores[self.row_C, column_C] = self.score_C
        return Found(np.where(np.isneginf(scores), -1, indices), scores)

    def _compete(self) -> None:
        """Keep each query's best k, in order."""
        # Of equal scores the lower rank is the better: lexsort's last key decides first.
        order = np.lexsort((self.rank_M[self.place_C], -self.score_C, self.row_C))
        self.row_C, self.place_C, self.score_C = self.row_C[order], self.place_C[order], self.score_C[order]
        place = self._places_in_row()
        kept = place < self.k
        last = place == self.k - 1
        self.least_N[self.row_C[last]] = self.score_C[last]
        self.row_C, self.place_C, self.score_C = self.row_C[kept], self.place_C[kept], self.score_C[kept]

    def _places_in_row(self) -> np.ndarray:
        """Which one of its query's candidates, ordered by query, each one is."""
        counts = np.bincount(self.row_C, minlength=self.rows)
        return np.arange(len(self.row_C)) - np.repeat(np.cumsum(counts) - counts, counts)


def _search_rows(queries_ND: np.ndarray, documents_MD: np.ndarray, k: int, block: int, rank_M: np.ndarray) -> Found:
    """The best k of each query, block after block of documents; the first ones are small and set the bar."""
    queries_ND = np.ascontiguousarray(queries_ND, dtype=np.float32)
    best = _Best(len(queries_ND), k, rank_M)
    start = 0
    while start < len(documents_MD):
        end = start + min(block, max(start, FIRST_BLOCK, 4 * k))
        documents_BD = np.asarray(documents_MD[start:end], dtype=np.float32)
        best.add(queries_ND @ documents_BD.T, start)
        start = end
    return best.found()
