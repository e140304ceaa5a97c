"""Paired sign-flip (Fisher-Pitman randomization) test for a mean difference.

Under the null hypothesis the two models are exchangeable query by query, so each difference is as likely to carry the
other sign. The test asks how often random signs give a mean at least as far from zero as the one observed. It assumes
no distribution (Smucker, Allan & Carterette 2007 recommend it for comparing rankings).

A difference of exactly zero stays zero under a flip: it adds nothing to any flipped sum. So zeros count in the
mean's denominator only, which changes no p-value and saves work. They do reduce resolution: with m non-zero differences
the smallest possible two-sided p is 2 / 2^m.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gemma4vec.statistics.stratified import Floats, stratify

EXACT_UP_TO = 14  # 2^14 = 16,384 sign patterns: as cheap as the default number of random flips, and exact
MORE_FLIPS = 20  # times as many random flips where the first ones leave the decision open
MOST_SIGNS = 400_000_000  # random signs of one test, so that a large suite stays a matter of seconds
FLIPS_PER_BLOCK = 1024  # part of the definition of a seeded result: random bits are drawn block by block
TOLERANCE = 1e-10  # two sums of the same numbers in another order differ by rounding only; count them as tied


@dataclass(frozen=True)
class SignFlip:
    """Result of the paired sign-flip test.

    Attributes:
        mean: mean difference (mean over strata of the strata's means).
        p: two-sided p-value.
        n: number of pairs.
        nonzero: pairs whose difference is not zero.
        flips: sign patterns that were tried, the observed one included.
        exact: whether these were all patterns there are.
    """

    mean: float
    p: float
    n: int
    nonzero: int
    flips: int
    exact: bool


def sign_flip_test(
    differences: npt.ArrayLike,
    strata: Sequence[str] | None = None,
    *,
    flips: int = 10_000,
    seed: int = 0,
    levels: Sequence[float] = (0.05,),
) -> SignFlip:
    """Two-sided paired sign-flip test of "the mean difference is zero".

    All 2^m patterns are enumerated when at most 14 differences are non-zero. Otherwise `flips` random patterns are
    drawn and p = (1 + those at least as extreme) / (1 + flips), which keeps the test valid: p is never zero
    (Phipson & Smyth 2010, "Permutation p-values should never be zero"). Memory does not grow with `flips`.

    An estimate from random patterns has an error of its own, sqrt(p (1 - p) / flips). If p lies within 4 of these
    errors of a level that it will be compared with, 20 times as many patterns are drawn (fewer for more than 2,000
    non-zero differences).

    Args:
        differences: one value per query, [N].
        strata: task of each query, or None for a plain mean.
        flips: random sign patterns, at least 1.
        seed: of the random patterns; the same seed gives the same p.
        levels: values that p will be compared with: alpha, or what a correction for many comparisons leaves of it
            (`multiplicity.decision_levels`). Empty: no more patterns than `flips`.

    Raises:
        ValueError: no differences, values that are not finite, or fewer than one flip.
    """
    if flips < 1:
        raise ValueError(f"flips must be at least 1, got {flips}")
    sample = stratify(differences, strata)
    terms_M = (sample.weights * sample.values)[sample.values != 0.0]
    n, m = sample.values.size, terms_M.size
    threshold = abs(float(terms_M.sum())) - TOLERANCE * float(np.abs(terms_M).sum())
    if m <= EXACT_UP_TO:
        sums = _all_signs(m) @ terms_M
        p = float(np.mean(np.abs(sums) >= threshold))
        return SignFlip(sample.mean, p, n, m, flips=2**m, exact=True)
    generator = np.random.default_rng(seed)
    extreme = _count_extreme(terms_M, threshold, flips, generator)
    more = min(MORE_FLIPS * flips, MOST_SIGNS // m)
    if more > 0 and is_near((1 + extreme) / (1 + flips), flips, levels):
        extreme += _count_extreme(terms_M, threshold, more, generator)
        flips += more
    return SignFlip(sample.mean, (1 + extreme) / (1 + flips), n, m, flips=1 + flips, exact=False)


def is_near(p: float, flips: int, levels: Sequence[float]) -> bool:
    """Whether the error of random patterns leaves open on which side of a level p lies.

    The error is taken at the level: at a p of 1 / flips its estimate from p itself would be too small.

    Args:
        p: estimated from random patterns (sign flips, rank swaps).
        flips: their number.
        levels: values that p will be compared with.
    """
    return any(abs(p - level) < 4.0 * math.sqrt(level * (1.0 - level) / flips) for level in levels)


def smallest_p(pairs: int) -> float:
    """Smallest two-sided p that a sign-flip test of this many non-zero pairs can give."""
    return min(1.0, 2.0 ** (1 - pairs))


def _all_signs(m: int) -> Floats:
    """Every row of +1 and -1 of length m, [2^m, m]."""
    bits = (np.arange(2**m)[:, None] >> np.arange(m)) & 1
    return 1.0 - 2.0 * bits.astype(np.float64)


def _count_extreme(terms_M: Floats, threshold: float, flips: int, generator: np.random.Generator) -> int:
    """Count the random sign patterns with |sum| >= threshold."""
    extreme = 0
    bytes_per_row = (terms_M.size + 7) // 8
    for start in range(0, flips, FLIPS_PER_BLOCK):
        rows = min(FLIPS_PER_BLOCK, flips - start)
        packed = generator.integers(0, 256, size=(rows, bytes_per_row), dtype=np.uint8)
        flipped = np.unpackbits(packed, axis=1, count=terms_M.size)
        # sum of s_i t_i = total - 2 * (sum of the flipped terms)
        sums = terms_M.sum() - 2.0 * (flipped.astype(np.float64) @ terms_M)
        extreme += int(np.count_nonzero(np.abs(sums) >= threshold))
    return extreme
