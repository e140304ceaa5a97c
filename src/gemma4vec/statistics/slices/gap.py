"""The gap of one slice, tested on queries that did not choose it.

The interval is Welch's (1947) for the difference of two means with unequal variances; p is from permutations of the
studentized gap, which is exact where the slice means nothing and still right in large samples where only the spreads
differ (Janssen 1997; Chung & Romano 2013, "Exact and asymptotically robust permutation tests").
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from gemma4vec.statistics.combined_error import single_error
from gemma4vec.statistics.power import detectable_by_error
from gemma4vec.statistics.stratified import Floats, variance_of

VALUES_PER_BLOCK = 4_000_000
TOLERANCE = 1e-9


@dataclass(frozen=True)
class SliceGap:
    """Mean inside a slice minus mean outside.

    Attributes:
        gap, low, high: with its interval, in the values' unit; infinite limits where it has no estimable spread.
        p: one-sided, for the side that was named beforehand.
        n_inside, n_outside: queries.
        detectable: the gap on this side that such a test finds four times out of five.
    """

    gap: float
    low: float
    high: float
    p: float
    n_inside: int
    n_outside: int
    detectable: float


def slice_gap(
    values: npt.ArrayLike,
    mask: npt.ArrayLike,
    *,
    side: Literal["lower", "higher"] = "lower",
    confidence: float = 0.95,
    alpha: float = 0.05,
    permutations: int = 10_000,
    seed: int = 0,
) -> SliceGap:
    """Test one slice on one side.

    Args:
        values: one value per query, [N].
        mask: bool[N], whether the query is in the slice.
        side: the side that was claimed: "lower" is a slice below the rest.
        confidence: of the two-sided interval.
        alpha: one-sided level that `detectable` is for.
        permutations: random deals for p.
        seed: the same seed gives the same p.

    Raises:
        ValueError: no query inside or outside, values that are not finite, or a mask of another length.
    """
    values_N, mask_N = np.asarray(values, dtype=np.float64), np.asarray(mask, dtype=bool)
    if values_N.ndim != 1 or mask_N.shape != values_N.shape or not np.isfinite(values_N).all():
        raise ValueError(f"expected finite values and a mask of the same length, got {values_N.shape}, {mask_N.shape}")
    inside, outside = values_N[mask_N], values_N[~mask_N]
    if not len(inside) or not len(outside):
        raise ValueError("a slice has no queries, or all of them")
    gap = float(inside.mean() - outside.mean())
    error, freedom = _welch(inside, outside)
    if not math.isfinite(freedom):
        half, detectable = math.inf, math.inf
    else:
        half = float(stats.t.ppf(0.5 + confidence / 2.0, freedom)) * error if error else 0.0
        detectable = detectable_by_error(single_error(error, freedom), alpha=2.0 * alpha) if error else 0.0
    p = _permuted(values_N, mask_N, -1.0 if side == "lower" else 1.0, permutations, np.random.default_rng(seed))
    return SliceGap(gap, gap - half, gap + half, p, len(inside), len(outside), detectable)


def _welch(inside: Floats, outside: Floats) -> tuple[float, float]:
    """Standard error of the gap and Welch's degrees of freedom; infinite where a side has one query."""
    if len(inside) < 2 or len(outside) < 2:
        return math.inf, math.inf
    a, b = variance_of(inside) / len(inside), variance_of(outside) / len(outside)
    if a + b == 0.0:
        return 0.0, float(len(inside) + len(outside) - 2)
    return math.sqrt(a + b), (a + b) ** 2 / (a**2 / (len(inside) - 1) + b**2 / (len(outside) - 1))


def _permuted(
    values_N: Floats, mask_N: npt.NDArray[np.bool_], sign: float, permutations: int, generator: np.random.Generator
) -> float:
    """Share of deals whose studentized gap is at least the observed one; the observed deal counts."""
    if variance_of(values_N) == 0.0:
        return 1.0
    observed = float(_studentized(values_N[None], mask_N, sign)[0])
    extreme = 0
    block = max(1, VALUES_PER_BLOCK // len(values_N))
    for start in range(0, permutations, block):
        rows = min(block, permutations - start)
        dealt_BN = generator.permuted(np.tile(values_N, (rows, 1)), axis=1)
        extreme += int((_studentized(dealt_BN, mask_N, sign) >= observed - TOLERANCE).sum())
    return (1 + extreme) / (1 + permutations)


def _studentized(values_BN: Floats, mask_N: npt.NDArray[np.bool_], sign: float) -> Floats:
    """Gap over Welch's standard error for every row, [B]; without a spread on either side, the gap's sign alone."""
    inside_B, outside_B = values_BN[:, mask_N], values_BN[:, ~mask_N]
    gap_B = sign * (inside_B.mean(axis=1) - outside_B.mean(axis=1))
    if min(inside_B.shape[1], outside_B.shape[1]) < 2:
        return np.asarray(gap_B, dtype=np.float64)
    squared_B = inside_B.var(axis=1, ddof=1) / inside_B.shape[1] + outside_B.var(axis=1, ddof=1) / outside_B.shape[1]
    error_B = np.sqrt(np.maximum(squared_B, 1e-18))
    studentized_B: Floats = gap_B / error_B
    return studentized_B
