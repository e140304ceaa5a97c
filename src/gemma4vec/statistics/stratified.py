"""Mean over strata of the strata's means: the statistic of every test and interval in this folder.

With one stratum (one task, the common case) it is the plain mean. With several, each task has the same weight whatever
its number of queries, as in BEIR and MTEB.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

ROUNDING = 1e-12  # values this close, relative to the largest, are equal


@dataclass(frozen=True)
class StratifiedSample:
    """Values with the weight of each in the mean over strata of the strata's means.

    Attributes:
        values: the values, [N].
        weights: `1 / (strata * size of the value's stratum)`; they sum to 1.
        members: positions of the values of each stratum.
    """

    values: Floats
    weights: Floats
    members: list[npt.NDArray[np.int64]]

    @property
    def mean(self) -> float:
        """Mean over strata of the strata's means."""
        return float(np.mean([self.values[members].mean() for members in self.members]))


def stratify(values: npt.ArrayLike, strata: Sequence[str] | None = None) -> StratifiedSample:
    """Check `values` (one-dimensional, finite, not empty) and weight them by stratum.

    Raises:
        ValueError: no values, values that are not finite, or `strata` of another length.
    """
    values_N = np.asarray(values, dtype=np.float64)
    if values_N.ndim != 1 or values_N.size == 0:
        raise ValueError(f"expected a non-empty row of values, got an array of shape {values_N.shape}")
    if not np.isfinite(values_N).all():
        raise ValueError(f"{int((~np.isfinite(values_N)).sum())} of {values_N.size} values are not finite")
    if strata is None:
        return StratifiedSample(values_N, np.full(values_N.size, 1.0 / values_N.size), [np.arange(values_N.size)])
    if len(strata) != values_N.size:
        raise ValueError(f"{values_N.size} values but {len(strata)} strata labels")
    _, stratum_N, sizes = np.unique(np.asarray(strata), return_inverse=True, return_counts=True)
    members = [np.flatnonzero(stratum_N == index) for index in range(len(sizes))]
    return StratifiedSample(values_N, 1.0 / (len(sizes) * sizes[stratum_N]), members)


class StandardError(NamedTuple):
    """Standard error of a mean of means, in the values' unit, and its degrees of freedom."""

    standard_error: float
    freedom: float


def standard_error(sample: StratifiedSample) -> StandardError:
    """Standard error of the mean over H strata of the strata's means: sqrt(sum_h s_h^2 / n_h) / H.

    The degrees of freedom are Satterthwaite's (1946, "An Approximate Distribution of Estimates of Variance
    Components"): `n - 1` with one stratum, and with several at least the smallest stratum's. A stratum of one value
    has no estimable spread and adds nothing, so the error is then too small; without any other stratum it is 0 with 0
    degrees of freedom.
    """
    larger = [members for members in sample.members if members.size > 1]
    parts_H = np.array([variance_of(sample.values[members]) / members.size for members in larger])
    total = float(parts_H.sum())
    if total == 0.0:
        return StandardError(0.0, float(sum(members.size - 1 for members in larger)))
    freedom_H = np.array([members.size - 1 for members in larger])
    shares_H = parts_H / total
    return StandardError(math.sqrt(total) / len(sample.members), float(1.0 / (shares_H**2 / freedom_H).sum()))


def variance_of(values: Floats) -> float:
    """Unbiased variance; exactly 0 for equal values, where rounding in the mean would otherwise make a test certain."""
    if np.ptp(values) <= ROUNDING * np.abs(values).max():
        return 0.0
    return float(values.var(ddof=1))


def singleton_note(sample: StratifiedSample) -> str:
    """Return a caveat if some strata have a single value, otherwise an empty string."""
    single = sum(members.size == 1 for members in sample.members)
    if single == 0 or sample.values.size == 1:
        return ""
    return f"{single} of {len(sample.members)} tasks have one query, whose spread is unknown and not in this interval"
