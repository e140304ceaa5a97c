"""The scores of one task, for every kind of suite."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gemma4vec.statistics.correlation import PAIR_METRICS, PairMetric

Items = Mapping[str, Mapping[str, float]]
"""Item id (a query, a pair, a row) -> metric -> value."""


@dataclass(frozen=True)
class TaskScores:
    """One task's scores.

    Attributes:
        items: measurements of every item; comparisons use them.
        quality: signs of unreliable scores, such as ties, as JSON values.
        seconds: wall time by stage.
        top: rows of top.parquet, for rankings.
    """

    items: Items
    quality: dict[str, Any]
    seconds: dict[str, float] = field(default_factory=dict)
    top: list[dict[str, Any]] = field(default_factory=list)


def task_scores(kind: str, items: Items) -> dict[str, float]:
    """Compute the figures of one task: means over items, or figures of all pairs together.

    If all pairs have the same similarity, the correlation is undefined; the score is then 0.
    """
    if kind in PAIRED:
        values_N, gold_N = pair_values(items)
        return {name: _figure(name, values_N, gold_N) for name in PAIRED[kind]}
    names = list(next(iter(items.values())))
    return {name: float(np.mean([scores[name] for scores in items.values()])) for name in names}


def pair_values(items: Items) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return similarities and judgments of the pairs, [N] each, in the items' order."""
    both = [(scores["similarity"], scores["gold"]) for scores in items.values()]
    similarity_N, gold_N = np.array(both, dtype=np.float64).T
    return similarity_N, gold_N


def _figure(name: PairMetric, values_N: npt.NDArray[np.float64], gold_N: npt.NDArray[np.float64]) -> float:
    value = float(PAIR_METRICS[name](values_N[None], gold_N[None])[0])
    return value if np.isfinite(value) else 0.0


# Kinds whose score is a figure of all items together; the main figure first.
PAIRED: dict[str, tuple[PairMetric, ...]] = {"sts": ("spearman", "pearson"), "pair-classification": ("ap",)}
