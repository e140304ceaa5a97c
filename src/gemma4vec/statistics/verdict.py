"""Verdict on a difference, with its reason in one sentence."""

from dataclasses import dataclass
from typing import Literal

from gemma4vec.statistics.bootstrap import Interval
from gemma4vec.statistics.equivalence import Equivalence
from gemma4vec.statistics.multiplicity import AdjustedP, Correction
from gemma4vec.statistics.paired import SignFlip, smallest_p
from gemma4vec.statistics.seeds import SeedInterval
from gemma4vec.text.counted import counted

Word = Literal["better", "worse", "equivalent", "undetermined"]


_TURNED: dict[Word, Word] = {"better": "worse", "worse": "better"}


@dataclass(frozen=True)
class Verdict:
    """One word and the reason for it, in one sentence. "better" is said of A where the difference is A - B.

    Attributes:
        p: the p-value that was compared with alpha: adjusted, where a family was given.
        family: comparisons that it was adjusted for, this one included; 1 is none but this one.
        correction: "none", "holm" or "benjamini-hochberg".
        smallest_detectable: mean difference that these queries (and seeds) find four times out of five, if given.
    """

    word: Word
    reason: str
    p: float = 1.0
    family: int = 1
    correction: Correction = "none"
    smallest_detectable: float | None = None


def evidence(test: SignFlip, seeds: SeedInterval | None = None) -> float:
    """The uncorrected p-value that a verdict rests on.

    That of the recipes where the interval covers seeds, else that of the sign flips over queries, which takes the runs
    as they are. Tasks of one query have a spread that no standard error contains, so there both must agree.
    """
    if seeds is None or not seeds.over_seeds:
        return test.p
    return max(seeds.p, test.p) if seeds.note else seeds.p


def decide(
    test: SignFlip,
    interval: Interval,
    *,
    seeds: SeedInterval | None = None,
    margin: float | None = None,
    equivalence: Equivalence | None = None,
    adjusted: AdjustedP | None = None,
    smallest_detectable: float | None = None,
    lower_is_better: bool = False,
    alpha: float = 0.05,
) -> Verdict:
    """Judge a mean difference A - B by its p-value and its interval.

    "better" and "worse" need both: p (`evidence`; adjusted, where a family is given) below `alpha` and an interval on
    one side of zero. "equivalent" is only ever said against a stated margin, when the whole interval lies inside it; it
    then goes before "better", since whoever stated the margin said that smaller differences do not matter. In a family
    it also needs the equivalence test's own p, times the family's size, below `alpha`. It is never said where a task
    has one query. Everything else is "undetermined": no evidence of a difference is not evidence of no difference.

    Args:
        test: sign flips over queries: of these runs.
        interval: over seeds and queries where `seeds` covers seeds, else over queries.
        seeds: of the same differences; its p decides where it covers seeds.
        margin: differences below it do not matter; `equivalence` brings its own.
        equivalence: `equivalence.equivalence_test` of the same differences.
        adjusted: `evidence(test, seeds)` corrected for the family that the comparison belongs to; None for a
            comparison on its own.
        smallest_detectable: stored with the verdict.
        lower_is_better: of a loss, where a negative A - B is "better".

    Raises:
        ValueError: a margin that is not above zero or not that of `equivalence`; a margin in a family without
            `equivalence`; `adjusted` for another p; `equivalence` of the other kind.
    """
    if equivalence is not None:
        if equivalence.question != "equivalence" or (margin is not None and margin != equivalence.margin):
            raise ValueError(f"expected an equivalence test with margin {margin}, got {equivalence}")
        margin = equivalence.margin
    if margin is not None and not margin > 0.0:
        raise ValueError(f"the margin must be above zero, got {margin}")
    p = evidence(test, seeds)
    adjusted = adjusted or AdjustedP(p, p, 1, "none")
    if adjusted.p != p:
        raise ValueError(f"the adjusted p-value is of p = {adjusted.p}, the evidence's is {p}")
    if margin is not None and equivalence is None and adjusted.family > 1:
        raise ValueError(f"a margin in a family of {adjusted.family} comparisons needs the equivalence test's p")
    word, reason = _word(test, interval, margin, equivalence, adjusted, alpha)
    if seeds is not None and seeds.over_seeds:
        reason += f", over {' and '.join(map(str, seeds.runs))} seeds and the queries"
    if lower_is_better:
        word = _TURNED.get(word, word)
    return Verdict(word, reason, adjusted.adjusted, adjusted.family, adjusted.correction, smallest_detectable)


def _word(
    test: SignFlip,
    interval: Interval,
    margin: float | None,
    equivalence: Equivalence | None,
    adjusted: AdjustedP,
    alpha: float,
) -> tuple[Word, str]:
    """The verdict's word and its reason."""
    if smallest_p(test.n) >= alpha:
        queries = counted(test.n, "query", "queries")
        least = f"its smallest p is {smallest_p(test.n):.3g}"
        return "undetermined", f"a sign-flip test of {queries} cannot reach p < {alpha:g} ({least})"
    p, p_words = adjusted.adjusted, f"p = {format_p(adjusted.adjusted)}"
    if adjusted.family > 1:
        name = {"holm": "Holm", "benjamini-hochberg": "Benjamini-Hochberg"}[adjusted.correction]
        p_words += f" ({name}, {adjusted.family} comparisons; {format_p(adjusted.p)} on its own)"
    span = f"{interval.confidence:.0%} interval {interval.low:+.4f} to {interval.high:+.4f}"
    # A degenerate interval has no width whatever the uncertainty; only "no query differs at all" needs none.
    has_width = interval.method != "degenerate" or test.nonzero == 0
    inside = margin is not None and has_width and -margin < interval.low and interval.high < margin
    if inside and interval.note:
        return "undetermined", f"the {span} lies inside the stated margin of {margin:g}, but {interval.note}"
    if inside and _holds_in_family(test, equivalence, adjusted.family, alpha):
        found = f", though a difference is detectable ({p_words})" if p < alpha else ""
        same = f"all {test.n} differences are zero: " if test.nonzero == 0 else ""
        return "equivalent", f"{same}the {span} lies inside the stated margin of {margin:g}{found}"
    if test.nonzero == 0:
        return "undetermined", f"all {test.n} differences are zero and no margin was stated"
    if smallest_p(test.nonzero) >= alpha:
        least = format_p(smallest_p(test.nonzero))
        return "undetermined", f"only {test.nonzero} of {test.n} queries differ, so p cannot fall below {least}"
    excludes_zero = interval.low > 0.0 or interval.high < 0.0
    side = "excludes" if excludes_zero else "includes"
    if p < alpha and excludes_zero:
        return "better" if test.mean > 0.0 else "worse", f"{p_words} and the {span} excludes zero"
    if inside:
        unsure = f"the {span} lies inside the stated margin of {margin:g}, but not for {adjusted.family} comparisons"
        return "undetermined", unsure
    if adjusted.family == 1 and (p < alpha or excludes_zero):
        return "undetermined", f"test and interval disagree: {p_words} but the {span} {side} zero"
    return "undetermined", f"{p_words} and the {span}{' of this comparison alone' * (p != adjusted.p)} {side} zero"


def _holds_in_family(test: SignFlip, equivalence: Equivalence | None, family: int, alpha: float) -> bool:
    """Whether "equivalent" survives the number of comparisons; that nothing differs at all needs no test."""
    if family == 1 or test.nonzero == 0:
        return True
    return equivalence is not None and equivalence.p * family < alpha


def format_p(p: float) -> str:
    """A p-value with three significant digits, so that rounding carries it neither to zero nor across .05 unseen."""
    return f"{p:.3g}" if p >= 1e-4 else f"{p:.1e}"
