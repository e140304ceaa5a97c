"""Whether a remedy did what its claim says: paired, on sealed queries inside and outside the slice, beside a control.

Verified needs all of it: a gain inside the slice that is more than luck and at least the claimed one, no loss outside
beyond the margin, and a gain over the control arm inside. Requiring all of several tests needs no correction for
their number (Berger 1982, intersection-union tests); the gain is corrected for the slices opened before.

Legend: N queries.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gemma4vec.statistics.bootstrap import Interval
from gemma4vec.statistics.equivalence import Equivalence, non_inferiority_test
from gemma4vec.statistics.paired import sign_flip_test
from gemma4vec.statistics.power import smallest_detectable
from gemma4vec.statistics.student import t_interval

VERIFIED, REFUTED, UNDETERMINED = "verified", "refuted", "undetermined"
ALPHA = 0.05
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """A mean difference on some queries.

    Attributes:
        mean, low, high: with Student's 95% interval; None for limits where nothing varies.
        p: two-sided, of random signs.
        n: queries.
    """

    mean: float
    low: float | None
    high: float | None
    p: float
    n: int

    def words(self) -> str:
        """For a sentence."""
        limits = "" if self.low is None else f" ({self.low:+.3f} to {self.high:+.3f})"
        return f"{self.mean:+.3f}{limits} on {self.n} queries"


@dataclass(frozen=True)
class Judgment:
    """What the sealed half says of a claim.

    Attributes:
        inside, outside: the remedy minus the model before it.
        over_control: the remedy minus the control arm, inside; None without one.
        p_family: p inside times the slices that were opened on these contents.
        elsewhere: p of "worse outside by the margin or more".
        reasons: what is missing or shown, in words.
    """

    verdict: str
    inside: Difference
    outside: Difference | None
    over_control: Difference | None
    p_family: float
    elsewhere: float | None
    reasons: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """For files and --json."""
        return {**asdict(self), "reasons": list(self.reasons)}


def detectable_effect(open_N: Floats, sealed: int, family: int) -> float:
    """The gain that the sealed half will show four times out of five, from the spread on the open half.

    Args:
        open_N: differences of the open half's queries in the slice.
        sealed: number of the slice's sealed queries.
        family: slices opened on these contents, this one included.

    Returns:
        Infinity where fewer than two queries tell no spread.
    """
    if len(open_N) < 2 or sealed < 2:
        return float("inf")
    return smallest_detectable(open_N, queries=sealed, family=family)


def judge_claim(
    gains_N: Floats,
    inside_N: npt.NDArray[np.bool_],
    smallest_effect: float,
    margin: float,
    *,
    over_control_N: Floats | None = None,
    family: int = 1,
    flips: int = 10_000,
    seed: int = 0,
) -> Judgment:
    """Judge a claim on queries that did not choose the slice.

    Args:
        gains_N: the remedy's values minus those of the model before it, of every sealed query.
        inside_N: whether the query is in the slice, bool[N].
        smallest_effect: smallest gain inside that was claimed.
        margin: largest loss outside that was accepted.
        over_control_N: the remedy's values minus the control arm's.
        family: slices opened on these contents, this one included.
        flips, seed: of the random signs.

    Raises:
        ValueError: no query inside, or values that are not finite.
    """
    if not inside_N.any():
        raise ValueError("no query is in the slice")
    inside = _difference(gains_N[inside_N], flips, seed, family)
    p_family = min(1.0, family * inside.p)
    reasons, refuted = [], False
    gained = inside.mean > 0.0 and p_family <= ALPHA
    if not gained:
        reasons.append(f"no gain on the slice that is more than luck (p {p_family:.3f})")
    if inside.mean < smallest_effect:
        reasons.append(f"the gain is below the claimed {smallest_effect:g}")
    refuted = _most(inside) < smallest_effect
    if refuted:
        reasons.append(f"a gain of {smallest_effect:g} is excluded")
    outside, guard = None, None
    if not inside_N.all():
        outside = _difference(gains_N[~inside_N], flips, seed, 1)
        guard = non_inferiority_test(gains_N[~inside_N], margin)
        if not _kept(guard, outside):
            reasons.append(f"not shown that the rest loses less than {margin:g}")
        if outside.high is not None and outside.high < -margin:
            refuted = True
            reasons.append("the rest is worse beyond the margin")
    over = None
    if over_control_N is not None:
        over = _difference(over_control_N[inside_N], flips, seed, 1)
        if not (over.mean > 0.0 and over.p <= ALPHA):
            reasons.append(f"no more than the control arm gains (difference {over.mean:+.3f}, p {over.p:.3f})")
    verdict = VERIFIED if not reasons else REFUTED if refuted else UNDETERMINED
    return Judgment(verdict, inside, outside, over, p_family, guard.p if guard is not None else None, tuple(reasons))


def _most(gain: Difference) -> float:
    """The largest mean that the queries leave open.

    Where none of n changed, up to 1 - .05^(1/n) of all queries could ("rule of three"), each by 1 at most.
    """
    if gain.high is not None:
        return gain.high
    return float(1.0 - ALPHA ** (1.0 / gain.n)) if gain.mean == 0.0 else float("inf")


def _kept(guard: Equivalence, outside: Difference) -> bool:
    """Whether the rest is no worse; queries that do not differ at all lose nothing."""
    return guard.shown or (outside.low is None and outside.mean >= 0.0)


def _difference(values_N: Floats, flips: int, seed: int, family: int) -> Difference:
    tested = sign_flip_test(values_N, flips=flips, seed=seed, levels=(ALPHA / family,))
    limits: Interval = t_interval(values_N)
    known = limits.method == "t"
    return Difference(
        tested.mean, limits.low if known else None, limits.high if known else None, tested.p, len(values_N)
    )
