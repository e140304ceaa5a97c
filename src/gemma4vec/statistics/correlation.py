"""Spearman's correlation for sentence similarity (STS): of one model, and of two models on the same pairs.

An STS score is one figure of all pairs together, so there are no per-query scores to subtract. What stands in for
them: the ranks of the model's similarities among all pairs. Two models are compared by resampling pairs (an interval)
and by swapping their ranks on random pairs (a test), which is the sign-flip test for a statistic that is not a mean.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats
from scipy.special import ndtri

from gemma4vec.statistics.weights import Floats

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
    """Spearman of A less Spearman of B, with its percentile bootstrap interval and two-sided swap-test p."""

    a: float
    b: float
    difference: float
    low: float
    high: float
    p: float
    confidence: float
    n: int


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
    """Is A's Spearman correlation with gold above B's? Pairs are resampled and ranked anew; p is +1 corrected.

    Args:
        similarities_a, similarities_b: two models' similarities of the same pairs, [N].
        resamples: bootstrap resamples and random swaps, each.

    Raises:
        ValueError: as `spearman`, or fewer than 100 resamples.
    """
    if not 0.0 < confidence < 1.0 or resamples < 100:
        raise ValueError(f"confidence must be in (0, 1) and resamples at least 100, got {confidence} and {resamples}")
    a_N, gold_N = _ranks(similarities_a, gold)
    b_N, _ = _ranks(similarities_b, gold)
    generator = np.random.default_rng(seed)
    a, b = (float(_pearson(side[None], gold_N[None])[0]) for side in (a_N, b_N))
    resampled, swapped = [], []
    for start in range(0, resamples, RESAMPLES_PER_BLOCK):
        rows = min(RESAMPLES_PER_BLOCK, resamples - start)
        drawn = generator.integers(0, a_N.size, size=(rows, a_N.size))
        gold_BN = stats.rankdata(gold_N[drawn], axis=1)
        sides = [_pearson(stats.rankdata(side[drawn], axis=1), gold_BN) for side in (a_N, b_N)]
        resampled.append(sides[0] - sides[1])
        swap = generator.integers(0, 2, size=(rows, a_N.size), dtype=np.uint8).astype(bool)
        first, second = np.where(swap, b_N, a_N), np.where(swap, a_N, b_N)
        swapped.append(_pearson(first, gold_N[None]) - _pearson(second, gold_N[None]))
    tail = (1.0 - confidence) / 2.0
    low, high = np.nanquantile(np.concatenate(resampled), [tail, 1.0 - tail])
    extreme = int((np.abs(np.concatenate(swapped)) >= abs(a - b) - 1e-12).sum())
    p = (1 + extreme) / (1 + resamples)
    return CorrelationDifference(a, b, a - b, float(low), float(high), p, confidence, a_N.size)


def _ranks(values: npt.ArrayLike, gold: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Ranks of both, checked."""
    values_N, gold_N = np.asarray(values, dtype=np.float64), np.asarray(gold, dtype=np.float64)
    if values_N.ndim != 1 or values_N.shape != gold_N.shape or values_N.size < 4:
        raise ValueError(f"expected two rows of 4 or more values, got shapes {values_N.shape} and {gold_N.shape}")
    if not (np.isfinite(values_N).all() and np.isfinite(gold_N).all()):
        raise ValueError("some values are not finite")
    if np.ptp(values_N) == 0.0 or np.ptp(gold_N) == 0.0:
        raise ValueError("all values of one side are equal: there is no correlation")
    return stats.rankdata(values_N), stats.rankdata(gold_N)


def _pearson(x_BN: Floats, y_BN: Floats) -> Floats:
    """Pearson's correlation of each row, [B]; NaN where a row does not vary."""
    x_BN = x_BN - x_BN.mean(axis=1, keepdims=True)
    y_BN = y_BN - y_BN.mean(axis=1, keepdims=True)
    below_B = np.sqrt((x_BN**2).sum(axis=1) * (y_BN**2).sum(axis=1))
    above_B = (x_BN * y_BN).sum(axis=1)
    return np.divide(above_B, below_B, out=np.full(below_B.shape, np.nan), where=below_B > 0.0)
