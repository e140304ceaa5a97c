"""Compare two results by a figure of all pairs together (Spearman, average precision), where no mean exists.

Legend: N pairs.
"""

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from gemma4vec.evaluation.results.task_scores import PAIRED, Items, pair_values
from gemma4vec.statistics.bootstrap import Interval, Method
from gemma4vec.statistics.correlation import CorrelationDifference, PairMetric, pair_metric_difference
from gemma4vec.statistics.paired import SignFlip, is_near
from gemma4vec.statistics.power import forecast_detectable

SWAPS, MORE_SWAPS = 2_000, 10
Tasks = Mapping[str, Items]
Doubles = npt.NDArray[np.float64]


class FigureComparison(NamedTuple):
    """The difference A - B of a figure, in the form of a mean difference.

    Attributes:
        found: the figure of both, bootstrap interval, swap test.
        test: p of swapping the two models' ranks on random pairs, in the form of a comparison of means.
        interval: percentile bootstrap.
        detectable: smallest difference that these pairs find with 80% probability.
        values_a, values_b: [N], 1 - |rank by the model - rank by people| / N of each pair. They show where A orders
            better than B; they do not sum to the difference.
    """

    found: CorrelationDifference
    test: SignFlip
    interval: Interval
    detectable: float
    values_a: Doubles
    values_b: Doubles


def as_pair_metric(kind: str, metric: str) -> PairMetric | None:
    """Return `metric` if it is a figure of all pairs together for this kind, else None."""
    return next((figure for figure in PAIRED.get(kind, ()) if figure == metric), None)


def compare_figures(
    a: Tasks,
    b: Tasks,
    keys: Sequence[tuple[str, str]],
    figure: PairMetric,
    *,
    seed: int,
    family: int,
    levels: Sequence[float] = (0.05,),
) -> FigureComparison:
    """Compare two models on the same pairs, by task.

    Args:
        a, b: task -> pair -> similarity and judgment.
        keys: (task, pair) in the order of the returned values.
        figure: what is compared.
        seed: of bootstrap and swaps.
        family: number of comparisons, for the detectable difference.
        levels: values that p will be compared with; near one, ten times as many swaps are drawn.
    """
    tasks = []
    for task in a:
        similarity_a, gold_N = pair_values({pair: a[task][pair] for pair in a[task]})
        similarity_b, _ = pair_values({pair: b[task][pair] for pair in a[task]})
        tasks.append((similarity_a, similarity_b, gold_N))
    swaps = SWAPS
    found = pair_metric_difference(figure, tasks, resamples=swaps, seed=seed)
    if is_near(found.p, swaps, levels):
        swaps *= MORE_SWAPS
        found = pair_metric_difference(figure, tasks, resamples=swaps, seed=seed)
    near = [{key: value for task in side for key, value in _nearness(task, side[task]).items()} for side in (a, b)]
    values_a, values_b = (np.array([one[key] for key in keys]) for one in near)
    differing = int(np.count_nonzero(values_a != values_b))
    n = len(keys)
    method: Method = "percentile" if found.high > found.low else "degenerate"
    interval = Interval(found.difference, found.low, found.high, found.confidence, method, n)
    test = SignFlip(found.difference, found.p, n, differing, swaps + 1, False)
    detectable = forecast_detectable(found.error * sqrt(n), n, family=family)
    return FigureComparison(found, test, interval, detectable, values_a, values_b)


def _nearness(task: str, items: Items) -> dict[tuple[str, str], float]:
    """Return 1 - |rank by the model - rank by people| / N for each pair."""
    similarity_N, gold_N = pair_values(items)
    distance_N = np.abs(stats.rankdata(similarity_N) - stats.rankdata(gold_N)) / len(gold_N)
    return {(task, pair): 1.0 - float(distance) for pair, distance in zip(items, distance_N, strict=True)}
