"""Rankings of a suite's documents.

Legend: N queries, K ranks, M documents.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.retrieval.top_k import descending_id_rank

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

Progress = Callable[[str, int, int], None]
"""Called as `progress(stage, done, total)`; stages are "documents", "queries" and "search"."""


def no_progress(stage: str, done: int, total: int) -> None:
    """The progress callback that shows nothing."""


@dataclass(frozen=True)
class Ranking:
    """The best documents of each query, in trec_eval's order: by falling score, equal scores by descending document id.

    Attributes:
        indices: positions in the suite's corpus, [N, K]; -1 if fewer than K were found.
        scores: float32[N, K].
        seconds: wall time by stage, e.g. {"encode_documents": 12.1, "encode_queries": 0.4, "search": 0.1}.
    """

    indices: Ints
    scores: Floats
    seconds: dict[str, float] = field(default_factory=dict)


@runtime_checkable
class Ranker(Protocol):
    """Anything that can be evaluated on a retrieval suite."""

    name: str
    fingerprint: str

    def describe(self) -> dict[str, Any]:
        """Return the settings that the scores depend on, as JSON values."""
        ...

    def rank(self, suite: RetrievalSuite, depth: int, progress: Progress) -> Ranking:
        """Rank the best `depth` documents for each query, in trec_eval's order."""
        ...


def without_own_document(
    ranking: Ranking, query_ids: Sequence[str], document_ids: Sequence[str], depth: int
) -> Ranking:
    """Drop from each query's ranking the document with the query's id, and keep the best `depth` of the rest."""
    index_of = {document_id: index for index, document_id in enumerate(document_ids)}
    own_N = np.array([index_of.get(query_id, -2) for query_id in query_ids], dtype=np.int64)
    is_own_NK = ranking.indices == own_N[:, None]
    order_NK = np.argsort(is_own_NK, axis=1, kind="stable")
    indices_NK = np.take_along_axis(np.where(is_own_NK, -1, ranking.indices), order_NK, axis=1)
    scores_NK = np.take_along_axis(np.where(is_own_NK, -np.inf, ranking.scores), order_NK, axis=1)
    return Ranking(indices_NK[:, :depth], scores_NK[:, :depth].astype(np.float32), ranking.seconds)


def best_of_units(ranking: Ranking, document_ids: Sequence[str], units: Sequence[str], depth: int) -> Ranking:
    """Give each unit the rank of its best document, and keep the best `depth` units, in trec_eval's order.

    Args:
        ranking: of documents.
        document_ids: ids of the M documents.
        units: for each document the id of the one that stands for its unit.
        depth: number of units.
    """
    index_of = {document_id: index for index, document_id in enumerate(document_ids)}
    unit_M = np.array([index_of[unit] for unit in units], dtype=np.int64)
    rank_M = descending_id_rank(list(document_ids))
    indices = np.full((len(ranking.indices), depth), -1, dtype=np.int64)
    scores = np.full((len(ranking.indices), depth), -np.inf, dtype=np.float32)
    for row, (found, values) in enumerate(zip(ranking.indices, ranking.scores, strict=True)):
        found_K, values_K = unit_M[found[found >= 0]], values[found >= 0]
        _, first = np.unique(found_K, return_index=True)
        found_K, values_K = found_K[first], values_K[first]
        order = np.lexsort((rank_M[found_K], -values_K))[:depth]
        indices[row, : len(order)], scores[row, : len(order)] = found_K[order], values_K[order]
    return Ranking(indices, scores, ranking.seconds)


def count_constant(ranking: Ranking) -> int:
    """Count the queries whose retrieved documents (two or more) all have the same score, up to 32-bit rounding."""
    found_NK = ranking.indices >= 0
    high_N = np.where(found_NK, ranking.scores, -np.inf).max(axis=1, initial=-np.inf)
    low_N = np.where(found_NK, ranking.scores, np.inf).min(axis=1, initial=np.inf)
    several_N = found_NK.sum(axis=1) >= 2
    high_N, low_N = high_N[several_N], low_N[several_N]
    return int(np.count_nonzero(high_N - low_N <= 1e-6 * np.maximum(np.abs(high_N), np.abs(low_N))))
