"""Non-inferiority and equivalence tests: is A no worse than B, or are both the same within a margin?

"No significant difference" answers neither: a test of ten queries finds no difference between anything. Here the burden
of proof is reversed: the null hypothesis is that A is worse by the margin or more, and a small p rejects it. The margin
is the largest acceptable loss, chosen before looking at results.

Both are one-sided t-tests on the mean over tasks of the tasks' means (Schuirmann 1987, "A Comparison of the Two
One-Sided Tests Procedure and the Power Approach", for equivalence). A sign-flip test does not apply: it needs a null
hypothesis of exchangeable models, and models that differ by the margin are not exchangeable.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gemma4vec.statistics.bootstrap import Interval
from gemma4vec.statistics.combined_error import CombinedError
from gemma4vec.statistics.stratified import stratify
from gemma4vec.statistics.student import one_sided_p, t_interval

MIN_DIFFERING = 10  # queries that differ, below which a spread estimated from them is a guess


@dataclass(frozen=True)
class Equivalence:
    """Answer to "no worse than the margin" or to "within the margin on both sides".

    Attributes:
        question: "non-inferiority" or "equivalence".
        margin: largest difference that does not matter, in the metric's unit.
        mean: mean difference A - B.
        p: small where the answer is yes, 1 where tasks of one query leave the spread unknown. For equivalence the
            larger of the two one-sided p-values, which needs no correction for being two (Berger 1982,
            intersection-union test).
        interval: two-sided interval with confidence 1 - 2 alpha: p < alpha exactly where it (for non-inferiority its
            lower end) lies inside the margin.
        shown: whether p, corrected for the family, is below alpha.
        reason: one sentence.
        note: caveat, or an empty string.
        family: number of comparisons that the answer is corrected for (`correct_for`), this one included.
        adjusted: p corrected for the family (Bonferroni); p itself in a family of one.
    """

    question: str
    margin: float
    mean: float
    p: float
    interval: Interval
    shown: bool
    reason: str
    note: str
    family: int = 1
    adjusted: float = 1.0


def non_inferiority_test(
    differences: npt.ArrayLike, margin: float, strata: Sequence[str] | None = None, *, alpha: float = 0.05
) -> Equivalence:
    """Is A worse than B by less than `margin`? One-sided t-test against a mean difference of -margin.

    Args:
        differences: A - B, one value per query, [N], on a metric where more is better.
        margin: largest acceptable loss, above zero.
        strata: task of each query, or None for a plain mean.

    Raises:
        ValueError: no differences, values that are not finite, a margin that is not above zero, `alpha` outside (0,
        .5).
    """
    return _test("non-inferiority", differences, margin, strata, alpha)


def equivalence_test(
    differences: npt.ArrayLike, margin: float, strata: Sequence[str] | None = None, *, alpha: float = 0.05
) -> Equivalence:
    """Do A and B differ by less than `margin` either way? Two one-sided t-tests, same arguments."""
    return _test("equivalence", differences, margin, strata, alpha)


def equivalence_of_estimate(
    question: str,
    mean: float,
    uncertainty: CombinedError,
    n: int,
    margin: float,
    *,
    alpha: float = 0.05,
) -> Equivalence:
    """The same two questions of a difference that is no mean over queries, by its standard error.

    Args:
        mean: the difference A - B of a figure where more is better.
        uncertainty: its standard error; 0 where nothing varies, and then there is no test.
        n: items that it is made of.

    Raises:
        ValueError: a margin that is not above zero, `alpha` outside (0, .5).
    """
    if not margin > 0.0 or not 0.0 < alpha < 0.5:
        raise ValueError(f"expected a margin above zero and alpha in (0, 0.5), got {margin} and {alpha}")
    error = uncertainty.error
    half = uncertainty.critical(alpha) * error if error > 0.0 else 0.0
    interval = Interval(mean, mean - half, mean + half, 1.0 - 2.0 * alpha, "t" if error > 0.0 else "degenerate", n)
    p = 1.0
    if error > 0.0:
        p = uncertainty.tail(mean + margin)
        if question == "equivalence":
            p = max(p, uncertainty.tail(margin - mean))
    note = "" if error > 0.0 else "the two do not differ anywhere: there is no test"
    return _answer(question, margin, mean, p, interval, note, alpha)


def correct_for(family: int, asked: Equivalence, *, alpha: float = 0.05) -> Equivalence:
    """The same answer where the comparison is one of `family`: p times their number must be below `alpha`.

    Raises:
        ValueError: a family below 1.
    """
    if family < 1:
        raise ValueError(f"a family has one comparison or more, got {family}")
    adjusted = min(1.0, family * asked.p)
    reason = _reason(asked.question, asked.margin, asked.mean, asked.p, alpha, family)
    return replace(asked, family=family, adjusted=adjusted, shown=adjusted < alpha, reason=reason)


def _test(
    question: str, differences: npt.ArrayLike, margin: float, strata: Sequence[str] | None, alpha: float
) -> Equivalence:
    if not margin > 0.0 or not 0.0 < alpha < 0.5:
        raise ValueError(f"expected a margin above zero and alpha in (0, 0.5), got {margin} and {alpha}")
    sample = stratify(differences, strata)
    interval = t_interval(differences, strata, confidence=1.0 - 2.0 * alpha)
    n, differing = sample.values.size, int(np.count_nonzero(sample.values))
    if interval.method == "degenerate" or interval.note:
        p = 1.0
    else:
        p = one_sided_p(sample, -margin, "greater")
        if question == "equivalence":
            p = max(p, one_sided_p(sample, margin, "less"))
    return _answer(question, margin, sample.mean, p, interval, _note(n, differing, interval), alpha)


def _answer(
    question: str, margin: float, mean: float, p: float, interval: Interval, note: str, alpha: float
) -> Equivalence:
    reason = _reason(question, margin, mean, p, alpha)
    return Equivalence(question, margin, mean, p, interval, p < alpha, reason, note, adjusted=p)


def _reason(question: str, margin: float, mean: float, p: float, alpha: float, family: int = 1) -> str:
    """The answer in one sentence."""
    claim = f"A is worse than B by less than {margin:g}"
    if question == "equivalence":
        claim = f"A and B differ by less than {margin:g}"
    adjusted = min(1.0, family * p)
    figures = f"mean difference {mean:+.4f}, p = {adjusted:.3g}"
    if family > 1:
        figures += f" (corrected for {family} comparisons; {p:.3g} on its own)"
    return f"{'shown' if adjusted < alpha else 'not shown'} that {claim}: {figures}"


def _note(n: int, differing: int, interval: Interval) -> str:
    """What weakens the answer."""
    if interval.note:
        return f"{interval.note}: there is no test"
    if interval.method == "degenerate":
        # With no difference among n queries, 95% sure is only a share below 1 - .05^(1/n), about 3/n ("rule of three").
        unseen = 1.0 - 0.05 ** (1.0 / n)
        if differing == 0:
            return f"no query differs here, which leaves up to {unseen:.1%} of all queries that could: there is no test"
        return "the differences do not vary, so their spread is unknown: there is no test"
    if differing < MIN_DIFFERING:
        return f"only {differing} of {n} queries differ: too few to know their spread, so p is a rough guide"
    return ""
