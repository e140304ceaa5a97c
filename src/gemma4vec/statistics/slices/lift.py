"""How much more frequent something is among failures than among successes: the rate ratio, with an interval.

Without the second rate the first says little: a hub stood first in 7.6% of the failures on one suite, and in 5.4% of
the successes.
"""

import math
from dataclasses import dataclass

from scipy import stats


@dataclass(frozen=True)
class Rate:
    """A share with Wilson's interval (1927); `n` 0 has the interval from 0 to 1."""

    hits: int
    n: int
    low: float
    high: float

    @property
    def value(self) -> float | None:
        """The share; None of nothing."""
        return self.hits / self.n if self.n else None


@dataclass(frozen=True)
class Lift:
    """Rates among failures and successes, and their ratio.

    Attributes:
        ratio: of the rates; None where the denominator is 0 or a group is empty.
        low, high: of the ratio, also where it is None (one half is added to each count where one is 0); None where a
            group is empty.
    """

    failures: Rate
    successes: Rate
    ratio: float | None
    low: float | None
    high: float | None


def rate(hits: int, n: int, *, confidence: float = 0.95) -> Rate:
    """A share and its interval.

    Raises:
        ValueError: fewer than 0 hits, or more hits than n.
    """
    if not 0 <= hits <= n:
        raise ValueError(f"{hits} hits of {n}")
    if n == 0:
        return Rate(0, 0, 0.0, 1.0)
    z = float(stats.norm.ppf(0.5 + confidence / 2.0))
    share, spread = hits / n, z * z / n
    middle = (share + spread / 2.0) / (1.0 + spread)
    half = z / (1.0 + spread) * math.sqrt(share * (1.0 - share) / n + spread / (4.0 * n))
    low = 0.0 if hits == 0 else middle - half
    return Rate(hits, n, low, 1.0 if hits == n else middle + half)


def lift(hits_failures: int, failures: int, hits_successes: int, successes: int, *, confidence: float = 0.95) -> Lift:
    """Compare a rate among failures with that among successes.

    The interval is that of the logarithm of the ratio (Katz et al. 1978, "Obtaining confidence intervals for the risk
    ratio in cohort studies"), with one half added to each count where one is 0 (Walter 1975).

    Raises:
        ValueError: more hits than members of a group.
    """
    one, other = rate(hits_failures, failures, confidence=confidence), rate(hits_successes, successes)
    if not failures or not successes:
        return Lift(one, other, None, None, None)
    ratio = None if hits_successes == 0 else (hits_failures / failures) / (hits_successes / successes)
    added = 0.5 if 0 in (hits_failures, hits_successes) else 0.0
    a, n = hits_failures + added, failures + added
    b, m = hits_successes + added, successes + added
    z = float(stats.norm.ppf(0.5 + confidence / 2.0))
    error = math.sqrt(max(0.0, 1.0 / a - 1.0 / n + 1.0 / b - 1.0 / m))
    middle = math.log((a / n) / (b / m))
    return Lift(one, other, ratio, math.exp(middle - z * error), math.exp(middle + z * error))
