"""Which of many slices of the queries differ from the rest: max-T permutation over all slices together.

Whoever looks at forty slices and shows the worst has chosen it. The p of each slice therefore comes from the
distribution of the largest statistic over all slices when the values are dealt to the queries at random (Westfall &
Young 1993, "Resampling-Based Multiple Testing", algorithm 2.8 and for the step-down 4.1). Overlapping slices cost
little, since their statistics are nearly the same in every deal.

The null hypothesis is that values are exchangeable over queries: which queries form the slice has nothing to do with
them. A slice whose values only spread more can therefore be found too; `gap.slice_gap` on other queries tests the mean.

Legend: N queries, S slices, B permutations.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from gemma4vec.statistics.stratified import Floats, variance_of

Side = Literal["lower", "higher", "both"]
EXACT_UP_TO = 7  # queries: 5,040 orders
VALUES_PER_BLOCK = 4_000_000  # permuted values held at a time: bounds memory to some tens of MB
TOLERANCE = 1e-9  # of statistics that rounding alone tells from each other


@dataclass(frozen=True)
class SliceTest:
    """One slice among those that were tested together.

    Attributes:
        n: queries in the slice.
        inside, outside: mean value of the slice's queries and of all others.
        z: the gap `inside - outside` over its standard error when slice and values are independent.
        p: of this slice alone.
        p_max_t: of this slice as one of all that were tested; at least `p`.
    """

    n: int
    inside: float
    outside: float
    z: float
    p: float
    p_max_t: float

    @property
    def gap(self) -> float:
        """Mean inside minus mean outside, in the values' unit."""
        return self.inside - self.outside


def max_t(
    values: npt.ArrayLike,
    masks: npt.ArrayLike,
    *,
    side: Side = "lower",
    permutations: int = 2000,
    step_down: bool = False,
    seed: int = 0,
) -> list[SliceTest]:
    """Test every slice, corrected for all of them.

    Args:
        values: one value per query, [N]: differences of two models, or one model's scores.
        masks: bool[S, N], whether the query is in the slice; each slice and its rest have at least one query.
        side: "lower" looks for slices below the rest, "higher" for those above, "both" for either.
        permutations: random deals; with at most 7 queries all orders are counted.
        step_down: also use, for each slice, that slices with larger statistics are no longer in question: more power,
            the same guarantee.
        seed: of the deals; the same seed gives the same p.

    Returns:
        One test a slice, in the order of `masks`. Where all values are equal every p is 1.

    Raises:
        ValueError: no values, values that are not finite, masks of another length, an empty slice or one of all
            queries, fewer than one permutation.
    """
    values_N = np.asarray(values, dtype=np.float64)
    masks_SN = np.atleast_2d(np.asarray(masks, dtype=bool))
    _check(values_N, masks_SN, permutations)
    n_S = masks_SN.sum(axis=1)
    inside_S = masks_SN @ values_N / n_S
    outside_S = (~masks_SN) @ values_N / (len(values_N) - n_S)
    z_S = _statistics(values_N[None], masks_SN, side)[0]
    if variance_of(values_N) == 0.0:
        z_S = np.zeros_like(z_S)
        rows = zip(n_S, inside_S, outside_S, strict=True)
        return [SliceTest(int(n), float(a), float(b), 0.0, 1.0, 1.0) for n, a, b in rows]
    order_S = np.argsort(-z_S, kind="stable")
    single_S, joint_S, counted = np.zeros(len(z_S)), np.zeros(len(z_S)), 0
    for dealt_BN in _deals(values_N, permutations, np.random.default_rng(seed)):
        found_BS = _statistics(dealt_BN, masks_SN, side)
        single_S += (found_BS >= z_S - TOLERANCE).sum(axis=0)
        if step_down:  # the largest of this slice and all slices with smaller statistics
            ordered_BS = np.maximum.accumulate(found_BS[:, order_S[::-1]], axis=1)[:, ::-1]
            joint_S[order_S] += (ordered_BS >= z_S[order_S] - TOLERANCE).sum(axis=0)
        else:
            joint_S += (found_BS.max(axis=1)[:, None] >= z_S - TOLERANCE).sum(axis=0)
        counted += len(dealt_BN)
    extra = 0 if len(values_N) <= EXACT_UP_TO else 1  # the observed deal counts, so p is never 0 (Phipson & Smyth 2010)
    single_S, joint_S = (single_S + extra) / (counted + extra), (joint_S + extra) / (counted + extra)
    if step_down:
        joint_S[order_S] = np.maximum.accumulate(joint_S[order_S])
    signed_S = _signed(z_S, inside_S - outside_S)
    return [
        SliceTest(int(n), float(a), float(b), float(z), float(p), float(joint))
        for n, a, b, z, p, joint in zip(n_S, inside_S, outside_S, signed_S, single_S, joint_S, strict=True)
    ]


def _check(values_N: Floats, masks_SN: npt.NDArray[np.bool_], permutations: int) -> None:
    if values_N.ndim != 1 or not len(values_N) or permutations < 1:
        raise ValueError(f"expected a row of values and at least 1 permutation, got {values_N.shape}, {permutations}")
    if not np.isfinite(values_N).all():
        raise ValueError(f"{int((~np.isfinite(values_N)).sum())} of {len(values_N)} values are not finite")
    if masks_SN.shape[1] != len(values_N):
        raise ValueError(f"{len(values_N)} values but slices over {masks_SN.shape[1]} queries")
    n_S = masks_SN.sum(axis=1)
    if ((n_S == 0) | (n_S == len(values_N))).any():
        raise ValueError("a slice has no queries, or all of them")


def _statistics(values_BN: Floats, masks_SN: npt.NDArray[np.bool_], side: Side) -> Floats:
    """Statistic of every slice for every row of values, [B, S]; large is extreme.

    The sum over the slice minus its expectation, over the standard deviation that sampling without replacement gives.
    """
    size = values_BN.shape[1]
    n_S = masks_SN.sum(axis=1)
    centered_BN = values_BN - values_BN.mean(axis=1, keepdims=True)
    variance_B = (centered_BN**2).sum(axis=1) / max(size - 1, 1)
    sums_BS = centered_BN @ masks_SN.T.astype(np.float64)
    spread_BS = np.sqrt(variance_B[:, None] * (n_S * (size - n_S) / size))
    z_BS = np.divide(sums_BS, spread_BS, out=np.zeros_like(sums_BS), where=spread_BS > 0.0)
    turned_BS: Floats = -z_BS if side == "lower" else z_BS if side == "higher" else np.abs(z_BS)
    return turned_BS


def _signed(z_S: Floats, gap_S: Floats) -> Floats:
    """Statistics with the sign of the gap."""
    signed_S: Floats = np.abs(z_S) * np.sign(gap_S)
    return signed_S


def _deals(values_N: Floats, permutations: int, generator: np.random.Generator) -> Iterator[Floats]:
    """Blocks of dealt values, [B, N]: all orders of few queries, else random ones."""
    if len(values_N) <= EXACT_UP_TO:
        yield values_N[np.array(list(itertools.permutations(range(len(values_N)))))]
        return
    block = max(1, VALUES_PER_BLOCK // len(values_N))
    for start in range(0, permutations, block):
        rows = min(block, permutations - start)
        yield generator.permuted(np.tile(values_N, (rows, 1)), axis=1)
