"""Rankings of a suite's documents by vectors that are at hand, and their scores.

Shapes: N vectors or rankings, D dimensions, M documents, K places.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.evaluation.scoring.metrics import per_query
from gemma4vec.evaluation.scoring.ranking import Ranking, best_of_units, without_own_document
from gemma4vec.retrieval.exact import search
from gemma4vec.retrieval.top_k import descending_id_rank

Vectors = NDArray[np.float32]
Rows = Sequence[int] | range
PARTS = 4  # documents that are ranked for each unit that counts, where units have several


def rank_vectors(
    suite: RetrievalSuite, queries_ND: Vectors, documents_MD: Vectors, depth: int, rows: Rows | None = None
) -> Ranking:
    """The best `depth` documents of each vector by inner product, in trec_eval's order.

    Args:
        suite: the suite.
        queries_ND: unit vectors.
        documents_MD: those of its documents.
        depth: number of places.
        rows: which query each vector belongs to; None: vectors and queries are in one order.
    """
    found = search(
        queries_ND,
        documents_MD,
        min(count_to_rank(suite, depth), len(documents_MD)),
        descending_id_rank=descending_id_rank(suite.corpus_ids),
    )
    return settle(suite, Ranking(found.indices, found.scores), depth, rows)


def count_to_rank(suite: RetrievalSuite, depth: int) -> int:
    """Documents to rank so that `depth` places are left after `settle`, as a rule."""
    return (PARTS if suite.units is not None else 1) * depth + suite.exclude_identical_ids


def settle(suite: RetrievalSuite, ranking: Ranking, depth: int, rows: Rows | None = None) -> Ranking:
    """At most `depth` places: of units if the suite has some, without own documents if it leaves them out.

    `rows` says which query each ranking belongs to; None: rankings and queries are in one order.
    """
    own = suite.exclude_identical_ids
    if suite.units is not None:
        ranking = best_of_units(ranking, suite.corpus_ids, suite.units, depth + own)
    if own:
        ids = suite.query_ids if rows is None else [suite.query_ids[row] for row in rows]
        return without_own_document(ranking, ids, suite.corpus_ids, depth)
    return Ranking(ranking.indices[:, :depth], ranking.scores[:, :depth], ranking.seconds)


def score_places(
    suite: RetrievalSuite, places_NK: NDArray[np.int64], metric: str, rows: Rows | None = None
) -> NDArray[np.float64]:
    """The metric of each ranking, `[N]`; a query may have several, and `rows` says whose each one is.

    Args:
        suite: the suite.
        places_NK: documents by rank; -1 is "none".
        metric: such as "ndcg@10".
        rows: which query each ranking belongs to; None: rankings and queries are in one order.
    """
    rows = range(len(places_NK)) if rows is None else rows
    names = [str(number) for number in range(len(places_NK))]
    judged = {name: suite.qrels[suite.query_ids[row]] for name, row in zip(names, rows, strict=True)}
    falling_NK = np.tile(-np.arange(places_NK.shape[1], dtype=np.float64), (len(places_NK), 1))
    return per_query(places_NK, falling_NK, names, suite.corpus_ids, judged, (metric,))[metric]


def score_vectors(
    suite: RetrievalSuite, queries_ND: Vectors, documents_MD: Vectors, metric: str = "ndcg@10", depth: int = 10
) -> NDArray[np.float64]:
    """The metric of each query by exact search, `[N]`; `depth` is at least the metric's."""
    return score_places(suite, rank_vectors(suite, queries_ND, documents_MD, depth).indices, metric)
