"""Exact nearest neighbours by inner product, in blocks, so that memory stays bounded.

Shapes: N queries, M documents, D dimensions, k places.
"""

import numpy as np

from gemma4vec.errors import InputError
from gemma4vec.retrieval.top_k import Found, top_k


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
        _search_rows(queries_ND[start : start + 256], documents_MD, k, block, rank)
        for start in range(0, len(queries_ND), 256)
    ]
    if not parts:
        return Found(np.empty((0, k), np.int64), np.empty((0, k), np.float32))
    return Found(np.concatenate([part.indices for part in parts]), np.concatenate([part.scores for part in parts]))


def _search_rows(queries_ND: np.ndarray, documents_MD: np.ndarray, k: int, block: int, rank_M: np.ndarray) -> Found:
    """Keep the best k so far and let each block of documents compete with them."""
    queries_ND = np.ascontiguousarray(queries_ND, dtype=np.float32)
    rows = len(queries_ND)
    best_indices = np.empty((rows, 0), dtype=np.int64)
    best_scores = np.empty((rows, 0), dtype=np.float32)
    for start in range(0, len(documents_MD), block):
        documents_BD = np.asarray(documents_MD[start : start + block], dtype=np.float32)
        positions = np.broadcast_to(np.arange(start, start + len(documents_BD)), (rows, len(documents_BD)))
        indices = np.concatenate([best_indices, positions], axis=1)
        scores = np.concatenate([best_scores, queries_ND @ documents_BD.T], axis=1)
        found = top_k(scores, min(k, scores.shape[1]), rank_M[indices])
        best_indices = np.take_along_axis(indices, np.maximum(found.indices, 0), axis=1)
        best_scores = found.scores
    padding = k - best_indices.shape[1]
    return Found(
        np.pad(best_indices, ((0, 0), (0, padding)), constant_values=-1),
        np.pad(best_scores, ((0, 0), (0, padding)), constant_values=-np.inf),
    )
