"""Bootstrap confidence interval for a mean over queries.

The bias-corrected and accelerated interval (BCa; Efron 1987, "Better Bootstrap Confidence Intervals") shifts the
percentiles of the bootstrap distribution for bias and skewness. Per-query scores are skewed (many zeros and ones),
which is where plain percentiles miss. Its weakness: skewness must be estimated itself, and fifty differences that are
mostly zero do not suffice. For differences use `student.t_interval`; docs/concepts/statistics.md has the measured
coverage of both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from gemma4vec.statistics.stratified import Floats, StratifiedSample, singleton_note, stratify

VALUES_PER_BLOCK = 2_000_000  # drawn values held at a time: bounds memory to some tens of MB

Method = Literal["bca", "percentile", "t", "degenerate"]


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval.

    `method` is the method used: "bca"; "percentile" where the BCa correction is undefined (all resamples on one side
    of the mean); "t" for Student's; "degenerate" where nothing varies (all values equal, or one value per stratum):
    then `low == high == mean` and the interval says nothing about uncertainty. `note` names tasks of one
    query, whose spread the interval lacks, or is an empty string.
    """

    mean: float
    low: float
    high: float
    confidence: float
    method: Method
    n: int
    note: str = ""

    def bounds(self) -> dict[str, float]:
        """Mean and limits as JSON values."""
        return {"mean": self.mean, "low": self.low, "high": self.high}


def mean_interval(
    values: npt.ArrayLike,
    strata: Sequence[str] | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """BCa interval for the mean over strata of the strata's means, resampling queries within each stratum.

    Args:
        values: one value per query, [N] (scores, or differences of two models).
        strata: task of each query, or None for a plain mean.
        confidence: coverage that the interval aims at, between 0 and 1.
        resamples: bootstrap resamples, at least 1.
        seed: the same seed gives the same interval.

    Raises:
        ValueError: no values, values that are not finite, `confidence` outside (0, 1), fewer than one resample.
    """
    if not 0.0 < confidence < 1.0 or resamples < 1:
        raise ValueError(f"confidence must be in (0, 1) and resamples at least 1, got {confidence} and {resamples}")
    sample = stratify(values, strata)
    mean, n = sample.mean, sample.values.size
    if all(np.ptp(sample.values[members]) == 0.0 for members in sample.members):
        return Interval(mean, mean, mean, confidence, "degenerate", n)
    means_B = _resampled_means(sample, resamples, np.random.default_rng(seed))
    tail = (1.0 - confidence) / 2.0
    levels = _bca_levels(sample, means_B, np.array([tail, 1.0 - tail]))
    method: Method = "bca"
    if levels is None:
        levels, method = np.array([tail, 1.0 - tail]), "percentile"
    low, high = np.quantile(means_B, levels)
    return Interval(mean, float(low), float(high), confidence, method, n, singleton_note(sample))


def _resampled_means(sample: StratifiedSample, resamples: int, generator: np.random.Generator) -> Floats:
    """Statistic of each bootstrap resample, [resamples]."""
    means_B = np.zeros(resamples)
    for members in sample.members:
        values = sample.values[members]
        block = max(1, VALUES_PER_BLOCK // values.size)
        for start in range(0, resamples, block):
            rows = min(block, resamples - start)
            drawn = generator.integers(0, values.size, size=(rows, values.size), dtype=np.int32)
            means_B[start : start + rows] += values[drawn].mean(axis=1) / len(sample.members)
    return means_B


def _bca_levels(sample: StratifiedSample, means_B: Floats, levels: Floats) -> Floats | None:
    """Return the bias-corrected percentile levels that replace `levels`, or None if they are undefined.

    Efron & Tibshirani 1993, "An Introduction to the Bootstrap", eq. 14.10 and 14.14.
    """
    # Resamples equal to the mean count half: per-query scores are discrete, so ties are common.
    rounding = 1e-12 * max(1.0, float(np.abs(means_B).max()))
    below = np.count_nonzero(means_B < sample.mean - rounding)
    equal = np.count_nonzero(np.abs(means_B - sample.mean) <= rounding)
    share = (below + 0.5 * equal) / means_B.size
    if not 0.0 < share < 1.0:
        return None
    bias = ndtri(share)
    shifted = bias + ndtri(levels)
    stretch = 1.0 - _acceleration(sample) * shifted
    if (stretch <= 0.0).any():
        return None
    return np.asarray(ndtr(bias + shifted / stretch))


def _acceleration(sample: StratifiedSample) -> float:
    """Skewness of the statistic's empirical influence over six.

    For a mean of means the jackknife (Efron & Tibshirani 1993, eq. 14.15) has a closed form: the influence of a value
    is its distance to its stratum's mean, over the stratum's size. Strata add up as independent samples.
    """
    influences = [(sample.values[members] - sample.values[members].mean()) / members.size for members in sample.members]
    influence_N = np.concatenate(influences)
    return float((influence_N**3).sum() / (6.0 * (influence_N**2).sum() ** 1.5))
