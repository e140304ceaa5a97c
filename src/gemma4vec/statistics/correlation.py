"""Metrics over all sentence pairs of a task: Spearman and Pearson correlation (STS), average precision.

Such a metric is no mean over queries, so there are no per-query differences. Two models are compared by resampling
pairs (an interval) and by swapping the ranks of their similarities on random pairs (a test): the sign-flip test for a
statistic that is not a mean. Several tasks are averaged, with pairs resampled and swapped within each task.

Legend: N pairs, B resamples.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy  # its parts are imported when they are used: scipy.stats takes most of a second
from scipy.special import ndtri

from gemma4vec.statistics.bootstrap import Interval
from gemma4vec.statistics.stratified import Floats

PairMetric = Literal["spearman", "pearson", "ap"]

RESAMPLES_PER_BLOCK = 64


@dataclass(frozen=True)
class Correlation:
    """Spearman's correlation, -1 to 1, with its interval."""

    value: float
    low: float
    high: float
    confidence: float
    n: int


@dataclass(frozen=True)
class CorrelationDifference:
    """Metric of A minus metric of B, with a percentile bootstrap interval and the p of a two-sided swap test."""

    a: float
    b: float
    difference: float
    low: float
    high: float
    p: float
    confidence: float
    n: int
    error: float
    """Standard error of the difference: the standard deviation of its bootstrap resamples."""


def spearman(similarities: npt.ArrayLike, gold: npt.ArrayLike, *, confidence: float = 0.95) -> Correlation:
    """Spearman's correlation (ties have their mean rank) with Bonett & Wright's interval.

    tanh(arctanh(r) -+ z sqrt((1 + r^2 / 2) / (n - 3))): Bonett & Wright 2000, "Sample Size Requirements for Estimating
    Pearson, Kendall and Spearman Correlations", eq. 4. It is for n of 25 or more and |r| below about .95.

    Args:
        similarities: the model's similarity of each pair of sentences, [N].
        gold: human similarity of the same pairs, [N].

    Raises:
        ValueError: other than two rows of one length of 4 or more finite values, all equal on one side, `confidence`
            outside (0, 1).
    """
    ranks_N, gold_N = _ranks(similarities, gold)
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must be in (0, 1), got {confidence}")
    value = float(_pearson(ranks_N[None], gold_N[None])[0])
    n = ranks_N.size
    if abs(value) > 1.0 - 1e-12:
        return Correlation(value, value, value, confidence, n)
    half = float(ndtri(0.5 + confidence / 2.0)) * math.sqrt((1.0 + value**2 / 2.0) / (n - 3))
    low, high = (math.tanh(math.atanh(value) + side * half) for side in (-1.0, 1.0))
    return Correlation(value, low, high, confidence, n)


def spearman_difference(
    similarities_a: npt.ArrayLike,
    similarities_b: npt.ArrayLike,
    gold: npt.ArrayLike,
    *,
    confidence: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> CorrelationDifference:
    """Compare two models by Spearman's correlation with gold. Resampled pairs are ranked again; p is +1 corrected.

    Args:
        similarities_a, similarities_b: two models' similarities of the same pairs, [N].
        resamples: bootstrap resamples and random swaps, each.

    Raises:
        ValueError: as `spearman`, or fewer than 100 resamples.
    """
    return pair_metric_difference(
        "spearman",
        [(similarities_a, similarities_b, gold)],
        confidence=confidence,
        resamples=resamples,
        seed=seed,
    )


def pair_metric_difference(
    figure: PairMetric,
    tasks: Sequence[tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike]],
    *,
    confidence: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> CorrelationDifference:
    """Compare two models by a metric averaged over tasks. Resampled pairs are ranked again; p is +1 corrected.

    A model whose similarities are all equal on a task scores 0 there.

    Args:
        figure: "spearman", "pearson", or "ap" (average precision; gold above 0 is a positive).
        tasks: for each task (similarities of A, similarities of B, gold), [N] each. The swap test swaps ranks
            (standardized values for Pearson), so that the models' scales do not matter.
        resamples: bootstrap resamples and random swaps, each.

    Raises:
        ValueError: as `spearman`, or fewer than 100 resamples.
    """
    if not 0.0 < confidence < 1.0 or resamples < 100:
        raise ValueError(f"confidence must be in (0, 1) and resamples at least 100, got {confidence} and {resamples}")
    compute = PAIR_METRICS[figure]
    scale = _standardize if figure == "pearson" else scipy.stats.rankdata
    prepared = [
        tuple(scale(_checked(side, gold)[0]) for side in (a, b)) + _checked(a, gold)[1:] for a, b, gold in tasks
    ]
    generator = np.random.default_rng(seed)
    a, b = (float(np.mean([compute(task[side][None], task[2][None])[0] for task in prepared])) for side in (0, 1))
    resampled, swapped = [], []
    for start in range(0, resamples, RESAMPLES_PER_BLOCK):
        rows = min(RESAMPLES_PER_BLOCK, resamples - start)
        drawn_B, swapped_B = np.zeros(rows), np.zeros(rows)
        for a_N, b_N, gold_N in prepared:
            drawn = generator.integers(0, a_N.size, size=(rows, a_N.size))
            gold_BN = gold_N[drawn]
            drawn_B += compute(a_N[drawn], gold_BN) - compute(b_N[drawn], gold_BN)
            swap = generator.integers(0, 2, size=(rows, a_N.size), dtype=np.uint8).astype(bool)
            first, second = np.where(swap, b_N, a_N), np.where(swap, a_N, b_N)
            gold_BN = np.broadcast_to(gold_N, first.shape)
            swapped_B += compute(first, gold_BN, ranked=True) - compute(second, gold_BN, ranked=True)
        resampled.append(drawn_B / len(prepared))
        swapped.append(swapped_B / len(prepared))
    tail = (1.0 - confidence) / 2.0
    low, high = np.nanquantile(np.concatenate(resampled), [tail, 1.0 - tail])
    error = float(np.nanstd(np.concatenate(resampled)))
    extreme = int((np.abs(np.concatenate(swapped)) >= abs(a - b) - 1e-12).sum())
    p = (1 + extreme) / (1 + resamples)
    n = sum(gold_N.size for *_, gold_N in prepared)
    return CorrelationDifference(a, b, a - b, float(low), float(high), p, confidence, n, error)


def pair_metric_interval(
    figure: PairMetric,
    tasks: Sequence[tuple[npt.ArrayLike, npt.ArrayLike]],
    *,
    confidence: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of one model's metric, averaged over tasks; pairs are resampled within tasks.

    Args:
        tasks: for each task (similarities, gold), [N] each.

    Raises:
        ValueError: as `spearman`.
    """
    compute = PAIR_METRICS[figure]
    prepared = [_checked(values, gold) for values, gold in tasks]
    generator = np.random.default_rng(seed)
    value = float(np.mean([compute(values_N[None], gold_N[None])[0] for values_N, gold_N in prepared]))
    n = sum(gold_N.size for _, gold_N in prepared)
    if all(np.ptp(values_N) == 0.0 for values_N, _ in prepared):
        return Interval(value, value, value, confidence, "degenerate", n, "all similarities are equal")
    means = []
    for start in range(0, resamples, RESAMPLES_PER_BLOCK):
        rows = min(RESAMPLES_PER_BLOCK, resamples - start)
        mean_B = np.zeros(rows)
        for values_N, gold_N in prepared:
            drawn = generator.integers(0, gold_N.size, size=(rows, gold_N.size))
            mean_B += compute(values_N[drawn], gold_N[drawn]) / len(prepared)
        means.append(mean_B)
    tail = (1.0 - confidence) / 2.0
    low, high = np.nanquantile(np.concatenate(means), [tail, 1.0 - tail])
    return Interval(value, float(low), float(high), confidence, "percentile", n)


def _checked(values: npt.ArrayLike, gold: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Both as doubles."""
    values_N, gold_N = np.asarray(values, dtype=np.float64), np.asarray(gold, dtype=np.float64)
    if values_N.ndim != 1 or values_N.shape != gold_N.shape or values_N.size < 4:
        raise ValueError(f"expected two rows of 4 or more values, got shapes {values_N.shape} and {gold_N.shape}")
    if not (np.isfinite(values_N).all() and np.isfinite(gold_N).all()):
        raise ValueError("some values are not finite")
    if np.ptp(gold_N) == 0.0:
        raise ValueError("all values of one side are equal: there is no correlation")
    return values_N, gold_N


def _ranks(values: npt.ArrayLike, gold: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Ranks of both, checked."""
    values_N, gold_N = _checked(values, gold)
    if np.ptp(values_N) == 0.0:
        raise ValueError("all values of one side are equal: there is no correlation")
    return scipy.stats.rankdata(values_N), scipy.stats.rankdata(gold_N)


def _standardize(values_N: Floats) -> Floats:
    spread = float(values_N.std())
    return np.asarray((values_N - values_N.mean()) / (spread if spread > 0.0 else 1.0))


def _pearson(x_BN: Floats, y_BN: Floats) -> Floats:
    """Pearson's correlation of each row, [B]; NaN where a row does not vary."""
    x_BN = x_BN - x_BN.mean(axis=1, keepdims=True)
    y_BN = y_BN - y_BN.mean(axis=1, keepdims=True)
    below_B = np.sqrt((x_BN**2).sum(axis=1) * (y_BN**2).sum(axis=1))
    above_B = (x_BN * y_BN).sum(axis=1)
    correlation_B: Floats = np.divide(above_B, below_B, out=np.full(below_B.shape, np.nan), where=below_B > 0.0)
    return correlation_B


def spearman_rows(values_BN: Floats, gold_BN: Floats, *, ranked: bool = False) -> Floats:
    """Spearman's correlation of each row, [B]; NaN where gold does not vary, 0 where the values do not.

    With `ranked` the values are ranks already, which two models swapped: they are not ranked again.
    """
    values_BN = values_BN if ranked else scipy.stats.rankdata(values_BN, axis=1)
    return pearson_rows(values_BN, _ranked_gold(gold_BN))


def _ranked_gold(gold_BN: Floats) -> Floats:
    """Ranks of each row; of one row that was broadcast, computed once."""
    if gold_BN.strides[0] == 0:
        return np.broadcast_to(scipy.stats.rankdata(gold_BN[0]), gold_BN.shape)
    return np.asarray(scipy.stats.rankdata(gold_BN, axis=1))


def pearson_rows(values_BN: Floats, gold_BN: Floats, *, ranked: bool = False) -> Floats:
    """Pearson's correlation of each row, [B]; NaN where gold does not vary, 0 where the values do not."""
    found_B = _pearson(values_BN, gold_BN)
    return np.where((np.ptp(values_BN, axis=1) == 0.0) & (np.ptp(gold_BN, axis=1) > 0.0), 0.0, found_B)


def average_precision_rows(values_BN: Floats, gold_BN: Floats, *, ranked: bool = False) -> Floats:
    """Average precision of finding gold above 0 by falling value, of each row, [B]; equal values are one step.

    The sum over steps of precision times the gain in recall, as scikit-learn computes it. NaN where gold has nothing
    to find.
    """
    order_BN = np.argsort(-values_BN, axis=1, kind="stable")
    values_BN = np.take_along_axis(values_BN, order_BN, axis=1)
    hits_BN = np.take_along_axis(gold_BN > 0.0, order_BN, axis=1)
    found_BN = np.cumsum(hits_BN, axis=1)
    is_end_BN = np.diff(values_BN, axis=1, append=-np.inf) != 0.0  # the last of each run of equal values
    precision_BN = found_BN / np.arange(1, values_BN.shape[1] + 1)
    # What a run of equal values found counts at the precision of its end.
    at_end_BN = np.where(is_end_BN, found_BN, 0)
    gained_BN = np.diff(np.maximum.accumulate(at_end_BN, axis=1), axis=1, prepend=0)
    total_B = found_BN[:, -1]
    summed_B = (gained_BN * precision_BN * is_end_BN).sum(axis=1)
    average_B: Floats = np.divide(summed_B, total_B, out=np.full(total_B.shape, np.nan), where=total_B > 0)
    return average_B


PAIR_METRICS: dict[PairMetric, Callable[..., Floats]] = {
    "spearman": spearman_rows,
    "pearson": pearson_rows,
    "ap": average_precision_rows,
}
