"""Compare groups of runs: without touched queries, corrected for the ledger's family, and recorded there."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from gemma4vec.evaluation.comparison.comparable import check_comparable
from gemma4vec.evaluation.comparison.compare_seeds import (
    ResultGroup,
    average_runs,
    check_alike,
    check_disjoint,
    over_seeds,
)
from gemma4vec.evaluation.comparison.comparison_count import (
    check_compared,
    contents,
    count_family_of_results,
    count_unrecorded,
    margins_stated_late,
    record,
)
from gemma4vec.evaluation.comparison.paired import Comparison, _compare_uncorrected
from gemma4vec.evaluation.comparison.scope import Scope, find_left_out, find_scope, recipe_of, why_no_sample
from gemma4vec.evaluation.comparison.touched import TouchedQueries, leave_out
from gemma4vec.evaluation.results.marks import model_marks, suite_marks
from gemma4vec.evaluation.results.result import Result
from gemma4vec.evaluation.scoring.contamination_mark import touched_queries
from gemma4vec.files import home
from gemma4vec.ledger.comparison_count import ComparisonFamily
from gemma4vec.ledger.ledger import Ledger, open_ledger
from gemma4vec.ledger.suite_contents import find_copies
from gemma4vec.ledger.suite_halves import withheld_items
from gemma4vec.statistics.equivalence import Equivalence
from gemma4vec.statistics.multiplicity import Correction, adjust, decision_levels
from gemma4vec.statistics.seeds import SeedInterval
from gemma4vec.statistics.verdict import Verdict, decide, evidence


class CorrectedComparisons(NamedTuple):
    """Comparisons on one suite and metric, in the order of the pairs, and their family."""

    comparisons: list[Comparison]
    family: ComparisonFamily


@dataclass(frozen=True)
class _Prepared:
    """One comparison before its figures.

    Attributes:
        whole: average results of A and B on all queries.
        a, b: the same on the queries that the comparison is made of.
        seeds: interval over seeds and queries, if a side has several runs.
    """

    whole: tuple[Result, Result]
    a: Result
    b: Result
    touched: TouchedQueries | None
    seeds: SeedInterval | None
    scope: Scope
    cautions: tuple[str, ...]


def compare_pairs(
    pairs: Sequence[tuple[Result, Result]],
    metric: str | None = None,
    *,
    seed: int = 0,
    margin: float | None = None,
    no_worse_than: float | None = None,
    correction: Correction = "holm",
    allow_different_settings: bool = False,
    only_known: bool = False,
) -> CorrectedComparisons:
    """Compare pairs of results, one run a side, as `compare_groups`."""
    return compare_groups(
        [(ResultGroup([a], [None]), ResultGroup([b], [None])) for a, b in pairs],
        metric,
        seed=seed,
        margin=margin,
        no_worse_than=no_worse_than,
        correction=correction,
        allow_different_settings=allow_different_settings,
        only_known=only_known,
    )


def compare_groups(
    pairs: Sequence[tuple[ResultGroup, ResultGroup]],
    metric: str | None = None,
    *,
    seed: int = 0,
    margin: float | None = None,
    no_worse_than: float | None = None,
    correction: Correction = "holm",
    allow_different_settings: bool = False,
    only_known: bool = False,
) -> CorrectedComparisons:
    """Compare pairs of groups, each one run or several, on one suite; corrected together, and recorded.

    Holm's procedure uses the p-values of these pairs; the other comparisons of the family count as p = 1.

    Args:
        pairs: (A, B), one or more; the differences are A - B.
        metric: one that all have; None is the first result's main metric.
        seed: of the random sign flips and of the bootstrap.
        margin: differences below it do not matter; required for the verdict "equivalent".
        no_worse_than: also test whether A is worse by less than this.
        correction: "holm" for claims, "benjamini-hochberg" for exploration.
        allow_different_settings: compare even if the models truncate texts at different lengths.
        only_known: show comparisons that the ledger has already, and record nothing.

    Raises:
        InputError: different suites or queries, a metric that one lacks, different truncation limits; runs of one side
            that differ in recipe, queries or truncation limits; a result on both sides.
        NotComparedError: `only_known`, and a pair was not compared yet.
    """
    metric = metric or pairs[0][0].results[0].metric
    for side in {id(side): side for pair in pairs for side in pair}.values():
        check_alike(side.results, allow_different_settings)
    for a, b in pairs:
        check_disjoint(a, b)
    means = [(average_runs(a.results), average_runs(b.results)) for a, b in pairs]
    for mean_a, mean_b in means:
        check_comparable(mean_a, mean_b, metric, allow_different_settings=allow_different_settings)
    if only_known:
        check_compared(means, metric)
    family = count_family_of_results(means, metric)
    with open_ledger(home(), tolerant=True) as ledger:
        sides = [side.results for pair in pairs for side in pair]
        family = replace(family, unrecorded=count_unrecorded(ledger, sides, metric))
        prepared = [
            _prepare(ledger, *pair, mean, metric, seed, margin=margin, no_worse_than=no_worse_than)
            for pair, mean in zip(pairs, means, strict=True)
        ]
    levels = decision_levels(len(pairs), correction, family.size)
    whole = means[0][0]
    withheld = withheld_items(whole.settings.get("suite") or {}, whole.keys)
    alone = [
        _compare_uncorrected(
            one.a,
            one.b,
            metric,
            seed=seed,
            margin=margin,
            no_worse_than=no_worse_than,
            family=family.size,
            levels=levels,
            seeds=one.seeds,
            allow_different_settings=True,
            withheld=withheld,
        )
        for one in prepared
    ]
    p_values = [
        1.0 if _none_left(one.touched) else evidence(each.test, one.seeds)
        for each, one in zip(alone, prepared, strict=True)
    ]
    adjusted = adjust(p_values, "none" if family.size == 1 else correction, family.size)
    found = []
    for each, one, corrected in zip(alone, prepared, adjusted, strict=True):
        notes = (*one.cautions, *((each.interval.note,) if each.interval.note else ()))
        each = replace(each, family=family, touched=one.touched, scope=one.scope, cautions=notes)
        if _none_left(one.touched):
            found.append(_undetermined(each, corrected.family, corrected.correction))
        else:
            verdict = decide(
                each.test,
                each.interval,
                seeds=one.seeds,
                equivalence=each.equivalence,
                adjusted=corrected,
                smallest_detectable=each.smallest_detectable,
                lower_is_better=each.lower_is_better,
            )
            found.append(replace(each, verdict=verdict))
        if not only_known:
            record(found[-1], *one.whole, margin=margin, no_worse_than=no_worse_than)
    return CorrectedComparisons(found, family)


def _prepare(
    ledger: Ledger,
    a: ResultGroup,
    b: ResultGroup,
    whole: tuple[Result, Result],
    metric: str,
    seed: int,
    *,
    margin: float | None,
    no_worse_than: float | None,
) -> _Prepared:
    """Leave out touched queries, and find what the comparison can speak of and what weakens it."""
    marks = [f"{one.model}: {mark}" for side in (a, b) for one in side.results for mark in model_marks(one)]
    late = margins_stated_late(
        ledger, [*a.results, whole[0]], [*b.results, whole[1]], metric, margin=margin, no_worse_than=no_worse_than
    )
    cautions = tuple(dict.fromkeys([*marks, *suite_marks(a.results[0]), *late]))
    touched = None
    if items := {item for side in (a, b) for one in side.results for item in touched_queries(one)}:
        rest = leave_out([*a.results, *b.results], items)
        if rest is not None:
            a = replace(a, results=rest[: len(a.results)])
            b = replace(b, results=rest[len(a.results) :])
        left = 0 if rest is None else len(rest[0].keys)
        mean_a, mean_b = (one.mean[metric] for one in whole)
        touched = TouchedQueries(len(whole[0].keys) - left, left, mean_a, mean_b)
    copies = find_copies(ledger, contents(whole[0]))
    left_out = {
        str(recipe_of(side.results)): runs for side in (a, b) if (runs := find_left_out(ledger, side.results, copies))
    }
    no_sample = why_no_sample([(side.results, side.seeds) for side in (a, b)], left_out)
    seeds = over_seeds(a, b, metric, seed, no_sample)
    scope = find_scope([a.results, b.results], seeds, no_sample, left_out)
    return _Prepared(whole, average_runs(a.results), average_runs(b.results), touched, seeds, scope, cautions)


def _none_left(touched: TouchedQueries | None) -> bool:
    return touched is not None and touched.left == 0


def _undetermined(found: Comparison, family: int, correction: Correction) -> Comparison:
    """Return the comparison without any answer, since training data touches all queries."""
    assert found.touched is not None
    reason = found.touched.sentence()
    verdict = Verdict("undetermined", reason, 1.0, family, correction, found.smallest_detectable)
    same, no_worse = (one and _unanswered(one, reason) for one in (found.equivalence, found.no_worse))
    return replace(found, verdict=verdict, equivalence=same, no_worse=no_worse)


def _unanswered(asked: Equivalence, reason: str) -> Equivalence:
    return replace(asked, p=1.0, adjusted=1.0, shown=False, reason=f"undetermined: {reason}", note="")
