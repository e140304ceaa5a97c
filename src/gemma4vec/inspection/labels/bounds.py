"""Bounds of nDCG where first ranks hold documents that nobody judged.

A document that is judged right later adds its gain, and also raises the best possible gain of the query: so "all of
them are right" is not the upper bound. For each number of right ones among the unjudged the best case has the first of
them right and the worst case the last, which makes the bounds exact. A document that the model does not show can only
raise the best possible gain.

Legend: U open ranks, those whose documents may be right or not.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class Bounds(NamedTuple):
    """nDCG of one query: if none of the open documents is right, if all are, and the least and most of any choice."""

    none: float
    all: float
    low: float
    high: float


def ndcg_bounds(ranks: Sequence[int | None], judged: Sequence[int], k: int = 10, *, elsewhere: int = 0) -> Bounds:
    """Bounds of one query, with linear gains as trec_eval's.

    Args:
        ranks: grades of the first ranks in their order; None for an open document, which counts 1 if it is right.
        judged: grades of all judged documents of the query.
        k: the cut.
        elsewhere: number of open documents behind the cut; those in `ranks` behind it count as wrong.

    Raises:
        ValueError: no document is judged right, so nDCG is not defined.
    """
    gains = [max(grade, 0) for grade in judged]
    if not any(gains):
        raise ValueError("no right document: nDCG is not defined")
    discounts_K = 1.0 / np.log2(np.arange(2, k + 2))
    shown = list(ranks[:k])
    base = sum(max(grade, 0) * discounts_K[place] for place, grade in enumerate(shown) if grade is not None)
    open_U = np.array([discounts_K[place] for place, grade in enumerate(shown) if grade is None])
    counts = range(len(open_U) + 1)
    best = [float(base + open_U[:right].sum()) / _ideal(gains, right, discounts_K) for right in counts]
    worst = [
        float(base + open_U[len(open_U) - right :].sum()) / _ideal(gains, right + elsewhere, discounts_K)
        for right in counts
    ]
    return Bounds(best[0], worst[-1], min(worst), max(best))


def _ideal(gains: Sequence[int], right: int, discounts_K: Floats) -> float:
    """The best possible gain with this number of further right documents."""
    ordered = sorted([*gains, *([1] * right)], reverse=True)[: len(discounts_K)]
    return float(np.dot(ordered, discounts_K[: len(ordered)]))
