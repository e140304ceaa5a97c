"""Adjusted p-values for many comparisons.

Twenty comparisons of equal models give one "p < .05" on average. An adjusted p-value is compared with the same .05,
and the guarantee then covers all comparisons together.

Two guarantees. *Holm* (for claims): the chance of even one false claim is at most alpha, whatever the dependence
between the tests. *Benjamini-Hochberg* (for exploration): of all differences called real, at most the share alpha is
false on average; this holds for independent and for positively dependent tests, such as variants compared with one
baseline.

The family is every comparison that was made, including those whose result was not kept. Its size therefore comes from
the caller (the ledger counts looks). Comparisons without a p-value here count as p = 1, which is conservative.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from gemma4vec.statistics.stratified import Floats

Correction = Literal["none", "holm", "benjamini-hochberg"]


@dataclass(frozen=True)
class AdjustedP:
    """A p-value before and after correction.

    Attributes:
        p: as tested.
        adjusted: to be compared with alpha.
        family: number of comparisons in the correction, this one included.
        correction: "none", "holm" or "benjamini-hochberg".
    """

    p: float
    adjusted: float
    family: int
    correction: Correction


def holm(p_values: npt.ArrayLike, family: int | None = None) -> Floats:
    """Holm's adjusted p-values, in the order given, [K] (Holm 1979, "A Simple Sequentially Rejective ... Procedure").

    The i-th smallest of m becomes the largest of (m - j + 1) p_(j) over j <= i, at most 1. One p-value of a family of m
    becomes m p: Bonferroni.

    Args:
        p_values: in [0, 1], [K].
        family: number of comparisons, K or more; K if None.

    Raises:
        ValueError: p-values outside [0, 1], or a family smaller than K.
    """
    p_K, m = _checked(p_values, family)
    order = np.argsort(p_K, kind="stable")
    stepped = np.maximum.accumulate(p_K[order] * (m - np.arange(p_K.size)))
    return _back(np.minimum(stepped, 1.0), order)


def benjamini_hochberg(p_values: npt.ArrayLike, family: int | None = None) -> Floats:
    """Benjamini & Hochberg's adjusted p-values, in the order given, [K] (1995, "Controlling the False Discovery Rate").

    The i-th smallest of m becomes the smallest of m p_(j) / j over j >= i, at most 1.

    Args:
        p_values: in [0, 1], [K].
        family: number of comparisons, K or more; K if None.

    Raises:
        ValueError: p-values outside [0, 1], or a family smaller than K.
    """
    p_K, m = _checked(p_values, family)
    order = np.argsort(p_K, kind="stable")
    stepped = np.minimum.accumulate((p_K[order] * m / np.arange(1, p_K.size + 1))[::-1])[::-1]
    return _back(np.minimum(stepped, 1.0), order)


def adjust(p_values: npt.ArrayLike, correction: Correction, family: int | None = None) -> list[AdjustedP]:
    """Each p-value with its adjusted one and the family that it was adjusted for, as a verdict stores it.

    Raises:
        ValueError: as `holm`; an unknown correction; no correction for a family of several.
    """
    p_K, m = _checked(p_values, family)
    if correction == "holm":
        adjusted_K = holm(p_K, m)
    elif correction == "benjamini-hochberg":
        adjusted_K = benjamini_hochberg(p_K, m)
    elif correction == "none" and m <= 1:
        adjusted_K = p_K
    else:
        raise ValueError(f"a family of {m} needs 'holm' or 'benjamini-hochberg', got '{correction}'")
    return [AdjustedP(float(p), float(q), m, correction) for p, q in zip(p_K, adjusted_K, strict=True)]


def decision_levels(count: int, correction: Correction, family: int, alpha: float = 0.05) -> list[float]:
    """Values that `count` uncorrected p-values of a family are compared with, smallest first.

    Holm: alpha / m, alpha / (m - 1), ...; Benjamini-Hochberg: alpha / m, 2 alpha / m, ...

    Raises:
        ValueError: fewer than one p-value, or a family smaller than their number.
    """
    if not 1 <= count <= family:
        raise ValueError(f"a family of {family} cannot hold {count} p-values")
    if correction == "benjamini-hochberg":
        return [alpha * (place + 1) / family for place in range(count)]
    return [alpha / (family - place) for place in range(count)]


def _checked(p_values: npt.ArrayLike, family: int | None) -> tuple[Floats, int]:
    p_K = np.asarray(p_values, dtype=np.float64)
    if p_K.ndim != 1 or not ((p_K >= 0.0) & (p_K <= 1.0)).all():
        raise ValueError(f"expected a row of p-values between 0 and 1, got {p_K}")
    size = p_K.size if family is None else family
    if size < p_K.size:
        raise ValueError(f"a family of {size} cannot hold {p_K.size} p-values")
    return p_K, size


def _back(sorted_K: Floats, order: npt.NDArray[np.intp]) -> Floats:
    """Return values in their original order."""
    original = np.empty_like(sorted_K)
    original[order] = sorted_K
    return original
