"""How small a difference this many queries can show."""

import math

from scipy import stats
from scipy.optimize import brentq


def smallest_detectable_difference(sd: float, n: int, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Mean difference that a two-sided paired t-test at level `alpha` finds with probability `power`.

    Solves the power function of the non-central t distribution (Cohen 1988, chapter 2). The sign-flip test on means has
    nearly the same power: asymptotically it is the t-test (Lehmann & Romano 2005, section 15.2).

    Args:
        sd: standard deviation of the per-query differences (n - 1 in the denominator).
        n: number of queries.

    Returns:
        The difference in the unit of `sd`; infinity with fewer than 2 queries; 0 when `sd` is 0.

    Raises:
        ValueError: a negative or non-finite `sd`, or `alpha` or `power` outside (0, 1).
    """
    if not (math.isfinite(sd) and sd >= 0.0 and 0.0 < alpha < 1.0 and alpha < power < 1.0):
        raise ValueError(f"expected sd >= 0 and 0 < alpha < power < 1, got sd={sd}, alpha={alpha}, power={power}")
    if n < 2:
        return math.inf
    if sd == 0.0:
        return 0.0
    freedom = n - 1
    critical = float(stats.t.ppf(1.0 - alpha / 2.0, freedom))

    def shortfall(noncentrality: float) -> float:
        # The lower rejection region adds less than alpha / 2 and nothing that matters at power 0.8.
        return float(stats.nct.sf(critical, freedom, noncentrality)) - power

    return float(brentq(shortfall, 0.0, 10.0 * critical + 10.0)) * sd / math.sqrt(n)
