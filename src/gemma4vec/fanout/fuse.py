"""Several rankings of one query as one: reciprocal rank fusion, and the union of their first places.

Shapes: K places, S suggestions, M documents.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
RANK_CONSTANT = 60


def fuse(own_K: Ints, others_SK: Sequence[Ints], weight: float, depth: int) -> tuple[Ints, Floats]:
    """The first `depth` documents of the query's own ranking and those of its suggestions, and their scores.

    A document's score is 1 / (60 + rank) in the query's ranking, plus `weight` times the mean of the same over the
    suggestions: reciprocal rank fusion (Cormack, Clarke and Buettcher, 2009) with a weight, since suggestions that
    drifted cost more than they bring. Equal scores keep the query's order, then the first suggestion's.

    Args:
        own_K: documents by rank; -1 is "none".
        others_SK: the same for each suggestion.
        weight: 0 leaves the query's ranking as it is.
        depth: number of documents.
    """
    scores: dict[int, float] = {}
    lists = [(1.0, own_K), *((weight / len(others_SK), other) for other in others_SK)]
    for share, ranking in lists:
        for rank, document in enumerate(ranking.tolist(), start=1):
            if document >= 0 and share > 0:
                scores[document] = scores.get(document, 0.0) + share / (RANK_CONSTANT + rank)
    order = sorted(scores, key=lambda document: -scores[document])[:depth]
    found, values = np.full(depth, -1, np.int64), np.zeros(depth)
    found[: len(order)] = order
    values[: len(order)] = [scores[document] for document in order]
    return found, values


def union(own_K: Ints, others_SK: Sequence[Ints], depth: int) -> Ints:
    """The first `depth` different documents, rank by rank: the query's first, then each suggestion's."""
    taken: dict[int, None] = {}
    for rank in range(max(map(len, (own_K, *others_SK)))):
        for ranking in (own_K, *others_SK):
            if rank < len(ranking) and ranking[rank] >= 0:
                taken.setdefault(int(ranking[rank]))
        if len(taken) >= depth:
            break
    found = np.full(depth, -1, np.int64)
    order = list(taken)[:depth]
    found[: len(order)] = order
    return found
