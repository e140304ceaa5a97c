"""The standard error of a mean that varies for several independent reasons, each known from few degrees of freedom.

Howe 1974 ("Approximate Confidence Limits on the Mean of X + Y Where X and Y Are Two Tabled Independent Random
Variables"): the squared half-width of the sum's interval is the sum of the parts' squared half-widths, each from its
own Student's t. With one part this is Student's interval.

Why not Satterthwaite's single number of degrees of freedom: it is estimated from the same variances. Where the spread
of six runs comes out small by chance, the error is too small and the degrees of freedom too many at once. At the levels
of a family of 20 that errs up to 2.6 times as often as it says (docs/concepts/statistics.md).
"""

import math
from dataclasses import dataclass

from scipy.optimize import brentq
from scipy.special import stdtrit

SMALLEST = 1e-30  # smallest p that is told from zero


@dataclass(frozen=True)
class CombinedError:
    """A standard error and its parts.

    Attributes:
        error: standard error, in the unit of the mean; 0 where nothing varies.
        shares: the parts' shares of the squared error, which sum to 1.
        freedoms: degrees of freedom of each part.
    """

    error: float
    shares: tuple[float, ...]
    freedoms: tuple[float, ...]

    def critical(self, tail: float) -> float:
        """Number of standard errors that the mean exceeds the truth by with this probability, `tail` below 1/2."""
        squares = (
            share * float(stdtrit(freedom, tail)) ** 2
            for share, freedom in zip(self.shares, self.freedoms, strict=True)
            if share > 0.0
        )
        return math.sqrt(sum(squares))

    def tail(self, distance: float) -> float:
        """One-sided p of a mean at this distance above the truth, in its unit; 1 where nothing varies."""
        if self.error == 0.0:
            return 1.0
        if distance < 0.0:
            return 1.0 - self.tail(-distance)
        t = distance / self.error
        if t == 0.0:
            return 0.5
        if self.critical(SMALLEST) <= t:
            return SMALLEST
        low, high = math.log(SMALLEST), math.log(0.5)
        return math.exp(float(brentq(lambda logarithm: self.critical(math.exp(logarithm)) - t, low, high)))

    def p(self, mean: float) -> float:
        """Two-sided p for a true mean of zero; 1 where nothing varies."""
        return min(1.0, 2.0 * self.tail(abs(mean)))

    def freedom_at(self, tail: float) -> float:
        """Degrees of freedom of the one Student's t with the same critical value; 0 where nothing varies."""
        known = [freedom for share, freedom in zip(self.shares, self.freedoms, strict=True) if share > 0.0]
        if not known or self.error == 0.0:
            return 0.0
        low, high = min(known), max(known)
        if high - low < 1e-9:
            return low
        critical = self.critical(tail)
        if -float(stdtrit(high, tail)) >= critical:
            return high
        if -float(stdtrit(low, tail)) <= critical:
            return low
        return float(brentq(lambda freedom: -float(stdtrit(freedom, tail)) - critical, low, high))


def single_error(error: float, freedom: float) -> CombinedError:
    """A standard error of one part: Student's t."""
    return CombinedError(error, (1.0,), (freedom,))
