"""Searching any store: checks, exact order of near ties, and the rows of hits.

A store finds candidates with arithmetic of its own. Here each candidate is scored once more in fp64, and equal scores
are ordered by ascending id, so that every store returns the same ranking.

Shapes: N queries, D dimension, C candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gemma4vec.errors import InputError
from gemma4vec.serving.store.filters import Filter
from gemma4vec.serving.store.rows import check_rows, check_vectors
from gemma4vec.serving.store.store_meta import Parameters
from gemma4vec.serving.store.vector_store import Candidates, VectorStore

MARGIN = 6  # candidates above k, which show whether rank k is a tie
NEAR_TIE = 1e-6  # above the rounding of any store's fp32 sums
MOST_CANDIDATES = 8192


@dataclass(frozen=True)
class Found:
    """A stored row and its cosine with the query."""

    id: str
    score: float


def add_rows(store: VectorStore, rows: pa.RecordBatch | pa.Table) -> None:
    """Check rows and add them; see `rows.check_rows` for their columns.

    Raises:
        InputError: a bad row; nothing of its batch is added.
        WorkError: the store cannot be written or reached.
    """
    batches = rows.combine_chunks().to_batches() if isinstance(rows, pa.Table) else [rows]
    for batch in batches:
        if batch.num_rows:
            store.add(check_rows(batch, store.meta.dimension, store.meta.fields))


def search_store(
    store: VectorStore, queries_ND: NDArray[np.float32], k: int, where: Filter | None = None, *, exact: bool = False
) -> list[list[Found]]:
    """Return the k rows with the highest cosine with each query, best first; fewer if fewer match `where`.

    Args:
        store: rows of the model that made the queries.
        queries_ND: unit vectors, float32[N, D].
        k: number of rows.
        where: only rows that match.
        exact: search all rows, also where the store has an index.

    Raises:
        InputError: k below 1, vectors that are not unit vectors of the store's dimension, or a filter on other fields.
        WorkError: the store cannot be reached.
    """
    return search_with(store, queries_ND, k, where, None if exact else _parameters(store))


def search_with(
    store: VectorStore,
    queries_ND: NDArray[np.float32],
    k: int,
    where: Filter | None = None,
    parameters: Parameters | None = None,
) -> list[list[Found]]:
    """`search_store` with given search parameters; None searches exactly."""
    if k < 1:
        raise InputError(f"k is {k}; use at least 1")
    queries_ND = np.ascontiguousarray(queries_ND, dtype=np.float32)
    check_vectors(queries_ND, store.meta.dimension, [f"query {row + 1}" for row in range(len(queries_ND))])
    if where is not None:
        where.check(store.meta.fields)
    results: list[list[Found]] = [[] for _ in queries_ND]
    open_rows, count = list(range(len(queries_ND))), k + MARGIN
    while open_rows:
        batch = store.candidates(queries_ND[open_rows], count, where, parameters)
        wider = []
        for row, candidates in zip(open_rows, batch, strict=True):
            results[row], tied = _order(queries_ND[row], candidates, k)
            if tied and count < MOST_CANDIDATES:
                wider.append(row)
        open_rows, count = wider, min(4 * count, MOST_CANDIDATES)
    return results


def _parameters(store: VectorStore) -> Parameters | None:
    return None if store.meta.index == "exact" else store.meta.parameters


def _order(query_D: NDArray[np.float32], candidates: Candidates, k: int) -> tuple[list[Found], bool]:
    """Return the k best candidates, and whether rows that were not fetched may tie with the last one."""
    scores_C = (candidates.vectors_CD.astype(np.float64) @ query_D.astype(np.float64)).astype(np.float32)
    ordered = sorted(zip((-scores_C).tolist(), candidates.ids, strict=True))
    found = [Found(identity, -negative) for negative, identity in ordered[:k]]
    tied = not candidates.complete and len(found) == k and ordered[-1][0] - ordered[k - 1][0] <= NEAR_TIE
    return found, tied


def found_ids(results: Sequence[Sequence[Found]]) -> list[list[str]]:
    """Return the ids alone."""
    return [[one.id for one in row] for row in results]
