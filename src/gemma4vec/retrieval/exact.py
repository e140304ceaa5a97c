"""Exact nearest neighbors by inner product, in blocks, with bounded memory.

A block of documents is read once for a group of some thousand queries, so a memory-mapped file is read sequentially.

Shapes: N queries, M documents, D dimensions, k ranks.
"""

from collections.abc import Callable

import numpy as np

from gemma4vec.errors import InputError, WorkError
from gemma4vec.retrieval.top_k import NAN_SCORE, TopK, top_k

Progress = Callable[[int, int], None]  # (scores computed, scores in total)
QUERIES_AT_ONCE = 256
BLOCK = 16_384  # documents scored at once
CANDIDATES_PER_GROUP = 8_000_000  # k times queries in a group; a candidate takes up to 28 bytes
FIRST_BLOCK = 1_024


def search(
    queries_ND: np.ndarray,
    documents_MD: np.ndarray,
    k: int,
    block: int = BLOCK,
    descending_id_rank: np.ndarray | None = None,
    progress: Progress | None = None,
) -> TopK:
    """Return the k documents with the highest inner product with each query, in fp32.

    Args:
        queries_ND: float[N, D].
        documents_MD: float[M, D]; a memory-mapped array is read one block at a time.
        k: number of documents to return; rows are padded with -1 and -inf if M < k.
        block: documents scored at once; 256 queries are scored together, so a block takes 256 x block x 4 bytes.
        descending_id_rank: int64[M], see `top_k.descending_id_rank`: orders equal scores, also at rank k. Without
            it the earlier document wins.
        progress: called as `progress(scores computed, scores in total)` after each block.

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
    group = max(QUERIES_AT_ONCE, CANDIDATES_PER_GROUP // k)
    total, done = len(queries_ND) * count, 0
    parts: list[TopK] = []
    for first in range(0, len(queries_ND), group):
        queries_RD = np.ascontiguousarray(queries_ND[first : first + group], dtype=np.float32)
        tiles = [queries_RD[start : start + QUERIES_AT_ONCE] for start in range(0, len(queries_RD), QUERIES_AT_ONCE)]
        running = [_RunningTopK(len(tile_ND), k, rank) for tile_ND in tiles]
        start = 0
        while start < count:
            # The first blocks are small: they set the threshold.
            end = min(count, start + min(block, max(start, FIRST_BLOCK, 4 * k)))
            documents_BD = np.asarray(documents_MD[start:end], dtype=np.float32)
            for tile_ND, best in zip(tiles, running, strict=True):
                best.add(tile_ND @ documents_BD.T, start)
            done += len(queries_RD) * (end - start)
            if progress:
                progress(done, total)
            start = end
        parts += [best.found() for best in running]
    if not parts:
        return TopK(np.empty((0, k), np.int64), np.empty((0, k), np.float32))
    return TopK(np.concatenate([part.indices for part in parts]), np.concatenate([part.scores for part in parts]))


class _RunningTopK:
    """Running top k of N queries over blocks of documents; C candidates in total.

    Only documents whose score reaches the query's current k-th best become candidates. After the first block few do, so
    the cost beyond the matrix product is about one comparison a score.
    """

    def __init__(self, rows: int, k: int, rank_M: np.ndarray) -> None:
        self.rows, self.k, self.rank_M = rows, k, rank_M
        self.threshold_N = np.full(rows, -np.inf, dtype=np.float32)
        self.row_C = np.empty(0, dtype=np.uint16)
        self.document_C = np.empty(0, dtype=np.int64)
        self.score_C = np.empty(0, dtype=np.float32)

    def add(self, scores_NB: np.ndarray, start: int) -> None:
        """Add the block of documents that begins at position `start`."""
        if np.isnan(scores_NB.min()):
            raise WorkError(NAN_SCORE)
        flat_C = np.flatnonzero(scores_NB >= self.threshold_N[:, None])
        row_C, column_C = np.divmod(flat_C, scores_NB.shape[1])
        self.row_C = np.concatenate([self.row_C, row_C.astype(np.uint16)])
        self.document_C = np.concatenate([self.document_C, column_C + start])
        self.score_C = np.concatenate([self.score_C, scores_NB.ravel()[flat_C]])
        if len(self.row_C) > 2 * self.k * self.rows:
            self._raise_threshold()

    def found(self) -> TopK:
        """Return the k best, sorted; padded with -1 and -inf."""
        column_C = self._group()
        documents_NC = self._padded(column_C, self.document_C, -1)
        # top_k needs distinct ranks within a row, also for padding.
        ranks_NC = len(self.rank_M) + np.tile(np.arange(documents_NC.shape[1]), (self.rows, 1))
        ranks_NC[self.row_C, column_C] = self.rank_M[self.document_C]
        found = top_k(self._padded(column_C, self.score_C, -np.inf), self.k, ranks_NC)
        if documents_NC.shape[1] == 0:
            return found
        indices = np.take_along_axis(documents_NC, np.maximum(found.indices, 0), axis=1)
        return TopK(np.where(found.indices < 0, -1, indices), found.scores)

    def _raise_threshold(self) -> None:
        """Drop candidates below the k-th best score; candidates equal to it may still win the tie."""
        scores_NC = self._padded(self._group(), self.score_C, -np.inf)
        width = scores_NC.shape[1]
        if width > self.k:
            self.threshold_N = np.partition(scores_NC, width - self.k, axis=1)[:, width - self.k]
        self._select(self.score_C >= self.threshold_N[self.row_C])
        if len(self.row_C) > 2 * self.k * self.rows:  # many ties: break them now to bound memory
            indices_NK, scores_NK = self.found()
            rows_C, columns_C = np.nonzero(indices_NK >= 0)
            self.row_C, self.document_C = rows_C.astype(np.uint16), indices_NK[rows_C, columns_C]
            self.score_C = scores_NK[rows_C, columns_C]

    def _group(self) -> np.ndarray:
        """Sort the candidates by query. Return each one's number within its query, [C]."""
        self._select(np.argsort(self.row_C, kind="stable"))
        counts = np.bincount(self.row_C, minlength=self.rows)
        return np.arange(len(self.row_C)) - np.repeat(np.cumsum(counts) - counts, counts)

    def _select(self, which: np.ndarray) -> None:
        self.row_C, self.document_C, self.score_C = self.row_C[which], self.document_C[which], self.score_C[which]

    def _padded(self, column_C: np.ndarray, values_C: np.ndarray, padding: float) -> np.ndarray:
        """Return the candidates' values as a matrix, one row a query."""
        table = np.full((self.rows, int(column_C.max(initial=-1)) + 1), padding, dtype=values_C.dtype)
        table[self.row_C, column_C] = values_C
        return table
