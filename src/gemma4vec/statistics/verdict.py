"""What may be said about a difference, and why, in one sentence."""

from dataclasses import dataclass
from typing import Literal

from gemma4vec.statistics.bootstrap import Interval
from gemma4vec.statistics.paired import SignFlip, smallest_p

Word = Literal["better", "worse", "equivalent", "undetermined"]


@dataclass(frozen=True)
class Verdict:
    """One word and the reason for it, in one sentence. "better" is said of A where the difference is A - B."""

    word: Word
    reason: str


def decide(test: SignFlip, interval: Interval, *, margin: float | None = None, alpha: float = 0.05) -> Verdict:
    """Judge a mean difference A - B by its sign-flip test and its interval.

    "better" and "worse" need both: p below `alpha` and an interval on one side of zero. "equivalent" is only ever said
    against a stated margin, when the whole interval lies inside it; it then goes before "better", since whoever stated
    the margin said that smaller differences do not matter. Everything else is "undetermined": no evidence of a
    difference is not evidence of no difference.

    Raises:
        ValueError: a margin that is not above zero.
    """
    if margin is not None and not margin > 0.0:
        raise ValueError(f"the margin must be above zero, got {margin}")
    if smallest_p(test.n) >= alpha:
        queries = "1 query" if test.n == 1 else f"{test.n} queries"
        return Verdict(
            "undetermined",
            f"a sign-flip test of {queries} cannot reach p < {alpha:g} (its smallest p is {smallest_p(test.n):.3g})",
        )
    span = f"{interval.confidence:.0%} interval {interval.low:+.4f} to {interval.high:+.4f}"
    # A degenerate interval has no width whatever the uncertainty; only "no query differs at all" needs none.
    has_width = interval.method != "degenerate" or test.nonzero == 0
    if margin is not None and has_width and -margin < interval.low and interval.high < margin:
        found = f", though a difference is detectable (p = {format_p(test.p)})" if test.p < alpha else ""
        same = f"all {test.n} differences are zero: " if test.nonzero == 0 else ""
        return Verdict("equivalent", f"{same}the {span} lies inside the stated margin of {margin:g}{found}")
    if test.nonzero == 0:
        return Verdict("undetermined", f"all {test.n} differences are zero and no margin was stated")
    if smallest_p(test.nonzero) >= alpha:
        return Verdict(
            "undetermined",
            f"only {test.nonzero} of {test.n} queries differ, so p cannot fall below {smallest_p(test.nonzero):.3g}",
        )
    excludes_zero = interval.low > 0.0 or interval.high < 0.0
    if test.p < alpha and excludes_zero:
        return Verdict("better" if test.mean > 0.0 else "worse", f"p = {format_p(test.p)} and the {span} excludes zero")
    if test.p < alpha or excludes_zero:
        side = "excludes" if excludes_zero else "includes"
        return Verdict("undetermined", f"test and interval disagree: p = {format_p(test.p)} but the {span} {side} zero")
    return Verdict("undetermined", f"p = {format_p(test.p)} and the {span} includes zero")


def format_p(p: float) -> str:
    """A p-value with three significant digits, so that rounding carries it neither to zero nor across .05 unseen."""
    return f"{p:.3g}" if p >= 1e-4 else f"{p:.1e}"
