"""The paired comparison of two results, query by query: the difference A - B, its interval and its test.

`_compare_uncorrected` ignores other comparisons, so it is private to evaluation/. All other callers use the functions
that take the family's size from the ledger.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gemma4vec.data.suites.kinds import LOWER_IS_BETTER
from gemma4vec.evaluation.comparison.comparable import check_comparable
from gemma4vec.evaluation.comparison.compare_figures import as_pair_metric, compare_figures
from gemma4vec.evaluation.comparison.scope import Scope
from gemma4vec.evaluation.comparison.touched import TouchedQueries
from gemma4vec.evaluation.results.result import Result
from gemma4vec.ledger.comparison_count import ComparisonFamily
from gemma4vec.statistics.bootstrap import Interval, Method
from gemma4vec.statistics.combined_error import single_error
from gemma4vec.statistics.equivalence import (
    Equivalence,
    correct_for,
    equivalence_of_estimate,
    equivalence_test,
    non_inferiority_test,
)
from gemma4vec.statistics.multiplicity import adjust, decision_levels
from gemma4vec.statistics.paired import SignFlip, sign_flip_test
from gemma4vec.statistics.power import detectable_by_error, smallest_detectable
from gemma4vec.statistics.seeds import SeedInterval
from gemma4vec.statistics.student import t_interval
from gemma4vec.statistics.verdict import Verdict, decide, evidence

SHOWN = 10  # number of largest differences in each direction
Doubles = npt.NDArray[np.float64]


class QueryDifference(NamedTuple):
    """One query's values under A and B."""

    task: str
    query_id: str
    a: float
    b: float
    difference: float


@dataclass(frozen=True)
class Comparison:
    """A minus B on one metric.

    Attributes:
        a, b: names of the models.
        mean_a, mean_b: their means (over tasks, of the tasks' means over queries).
        interval: mean difference A - B with its 95% interval: bootstrap over seeds and queries where `scope` is the
            recipes, else Student's over queries (reasons: docs/concepts/statistics.md).
        test: paired sign-flip test over queries, which speaks of these runs.
        verdict: of A ("better", "worse", ...), with the family's size and the correction. Its p is that of `seeds`
            where `scope` is the recipes, else that of `test`.
        smallest_detectable: mean difference that these queries (and seeds) find with 80% probability.
        equivalence: test of "within the margin", if a margin was given; corrected for the family.
        no_worse: test of "A is worse by less than this", if requested; corrected for the family.
        seeds: interval over seeds and queries, if A or B has several runs.
        touched: the queries that either's training data touches, if there are any. They are left out of everything
            else here; if none is left, the figures are those of all queries and the verdict is "undetermined".
        scope: whether the verdict speaks of the recipes or of these runs.
        cautions: what the figures must not be shown without, one sentence each.
        kind: of the suite's tasks.
        wins, losses, ties: queries where A is above, below, equal to B.
        largest_wins, largest_losses: queries with the largest differences, of those that may be shown.
        withheld: number of queries that are not named, since they are sealed or belong to a final suite.
        differing_settings: setting -> (A's value, B's value), for settings that both have and that differ.
        family: the family counted in the ledger; None without correction.
    """

    a: str
    b: str
    suite: str
    metric: str
    mean_a: float
    mean_b: float
    interval: Interval
    test: SignFlip
    verdict: Verdict
    smallest_detectable: float
    wins: int
    losses: int
    ties: int
    largest_wins: list[QueryDifference]
    largest_losses: list[QueryDifference]
    differing_settings: dict[str, tuple[Any, Any]]
    equivalence: Equivalence | None = None
    no_worse: Equivalence | None = None
    lower_is_better: bool = False
    kind: str = "retrieval"
    seeds: SeedInterval | None = None
    touched: TouchedQueries | None = None
    family: ComparisonFamily | None = None
    scope: Scope | None = None
    cautions: tuple[str, ...] = ()
    withheld: int = 0

    @property
    def difference(self) -> float:
        """Mean difference A - B."""
        return self.interval.mean

    def sentence(self) -> str:
        """Describe the result in one sentence that names the better side first."""
        worse = self.verdict.word == "worse"
        first, second = (self.b, self.a) if worse else (self.a, self.b)
        scores = (self.mean_b, self.mean_a) if worse else (self.mean_a, self.mean_b)
        lead = {
            "equivalent": f"{first} and {second} are equivalent",
            "undetermined": f"undetermined whether {first} or {second} is better",
        }.get(self.verdict.word, f"{first} is better than {second} by {abs(self.difference):.4f}")
        among = f", {self.touched.among()}" if self.touched else ""
        return (
            f"{lead} on {self.suite}{among}: {self.metric} {scores[0]:.4f} against {scores[1]:.4f}, difference A - B "
            f"{self.difference:+.4f}; {self.verdict.reason}{self.scope.clause() if self.scope else ''}."
        )

    def warnings(self) -> list[str]:
        """Return what must be shown next to the verdict: its scope, touched queries, cautions."""
        lines = [self.scope.sentence] if self.scope else []
        return [*lines, *([self.touched.sentence()] if self.touched else []), *self.cautions]

    def withheld_words(self) -> str:
        """Say which queries the largest differences do not name."""
        why = "sealed, here or in a suite that shares them, or of a final suite"
        return f"the largest differences name none of {self.withheld:,} queries: they are {why}"

    def as_dict(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        plain = {**asdict(self), "difference": self.difference, "direction": "A - B", "sentence": self.sentence()}
        for side in ("largest_wins", "largest_losses"):
            plain[side] = [query._asdict() for query in getattr(self, side)]
        return plain


def _compare_uncorrected(
    a: Result,
    b: Result,
    metric: str | None = None,
    *,
    resamples: int = 10_000,
    seed: int = 0,
    margin: float | None = None,
    no_worse_than: float | None = None,
    family: int = 1,
    levels: Sequence[float] | None = None,
    seeds: SeedInterval | None = None,
    allow_different_settings: bool = False,
    withheld: Collection[tuple[str, str]] = (),
) -> Comparison:
    """Compare two results on the same suite; the difference is A - B.

    Args:
        a, b: results.
        metric: a metric that both have; None is the suite's main metric. For a loss, lower is better. A figure of all
            pairs together (Spearman, average precision) is compared by bootstrap and rank swaps (`compare_figures`).
        resamples: number of random sign flips.
        seed: of the sign flips.
        margin: differences below it do not matter; required for the verdict "equivalent".
        no_worse_than: also test whether A is worse by less than this.
        family: number of comparisons on this suite and metric, this one included; p is then Holm's for the smallest
            of them, `family` times p.
        levels: values that an uncorrected p is compared with; None: that of the smallest p of the family.
        seeds: interval of A - B for means of several runs; it replaces Student's if it covers seeds.
        allow_different_settings: compare even if the models truncate texts at different lengths.
        withheld: (task, query id) that the largest differences must not name (`ledger.suite_halves`).

    Raises:
        InputError: different suites or queries, a metric that one lacks, different truncation limits.
    """
    metric = metric or a.metric
    differing = check_comparable(a, b, metric, allow_different_settings=allow_different_settings)
    keys, lower = a.keys, metric in LOWER_IS_BETTER
    levels = levels or decision_levels(1, "holm", family)
    asked = _Question(metric, margin, no_worse_than, seed, resamples, family, levels)
    found = _of_figure(a, b, asked) if as_pair_metric(a.kind, metric) else _of_means(a, b, asked, seeds)
    interval, test, same = found.interval, found.test, found.same
    values_a, values_b = found.values_a, found.values_b
    (adjusted,) = adjust([evidence(test, seeds)], "none" if family == 1 else "holm", family)
    shown = np.array([row for row, key in enumerate(keys) if key not in withheld], dtype=np.int64)
    wins, losses = _largest([keys[row] for row in shown.tolist()], values_a[shown], values_b[shown])
    return Comparison(
        a=a.model,
        b=b.model,
        suite=a.suite,
        metric=metric,
        mean_a=a.mean[metric],
        mean_b=b.mean[metric],
        interval=interval,
        test=test,
        verdict=decide(
            test,
            interval,
            seeds=seeds,
            equivalence=same,
            adjusted=adjusted,
            smallest_detectable=found.detectable,
            lower_is_better=lower,
        ),
        smallest_detectable=found.detectable,
        wins=int(np.count_nonzero(values_a > values_b)),
        losses=int(np.count_nonzero(values_a < values_b)),
        ties=int(np.count_nonzero(values_a == values_b)),
        largest_wins=wins,
        largest_losses=losses,
        differing_settings=differing,
        equivalence=same,
        no_worse=found.no_worse,
        lower_is_better=lower,
        kind=a.kind,
        seeds=seeds,
        withheld=len(keys) - len(shown),
    )


class LargestDifferences(NamedTuple):
    """The queries with the largest differences A - B in each direction, largest first."""

    largest_wins: list[QueryDifference]
    largest_losses: list[QueryDifference]


def largest_differences(
    a: Result, b: Result, metric: str, among: npt.NDArray[np.bool_] | None = None
) -> LargestDifferences:
    """Return queries to look at. There is no verdict, so the ledger counts no comparison.

    Args:
        metric: one whose score is a mean over queries.
        among: queries that may be shown, bool[N] in the order of `Result.keys`; None: all.

    Raises:
        InputError: as `check_comparable`.
    """
    check_comparable(a, b, metric)
    rows = np.arange(len(a.keys)) if among is None else np.flatnonzero(among)
    keys = [a.keys[row] for row in rows.tolist()]
    return LargestDifferences(*_largest(keys, a.values(metric)[1][rows], b.values(metric)[1][rows]))


class _Question(NamedTuple):
    """The settings of one comparison of two results on the same queries."""

    metric: str
    margin: float | None
    no_worse_than: float | None
    seed: int
    resamples: int
    family: int
    levels: Sequence[float]


class _Difference(NamedTuple):
    """The difference A - B, and the values of the queries in the order of `Result.keys`."""

    values_a: Doubles
    values_b: Doubles
    interval: Interval
    test: SignFlip
    same: Equivalence | None
    no_worse: Equivalence | None
    detectable: float


def _of_means(a: Result, b: Result, asked: _Question, seeds: SeedInterval | None) -> _Difference:
    """Compare by a metric whose score is a mean over queries."""
    (keys, values_a), (_, values_b) = a.values(asked.metric), b.values(asked.metric)
    difference_N, tasks = values_a - values_b, [task for task, _ in keys]
    interval = t_interval(difference_N, tasks)
    test = sign_flip_test(difference_N, tasks, flips=asked.resamples, seed=asked.seed, levels=asked.levels)
    gain_N = -difference_N if asked.metric in LOWER_IS_BETTER else difference_N
    same = None if asked.margin is None else equivalence_test(difference_N, asked.margin, tasks)
    no_worse = None if asked.no_worse_than is None else non_inferiority_test(gain_N, asked.no_worse_than, tasks)
    detectable = smallest_detectable(difference_N, tasks, family=asked.family)
    if seeds is not None and seeds.over_seeds:  # about the recipes, not about these runs
        method: Method = "percentile" if seeds.high > seeds.low else "degenerate"
        interval = Interval(seeds.mean, seeds.low, seeds.high, seeds.confidence, method, interval.n, interval.note)
        same = same and _over_seeds(same, seeds, interval.n, lower=False)
        no_worse = no_worse and _over_seeds(no_worse, seeds, interval.n, lower=asked.metric in LOWER_IS_BETTER)
        detectable = detectable_by_error(seeds.uncertainty, family=asked.family)
    same, no_worse = (one and correct_for(asked.family, one) for one in (same, no_worse))
    return _Difference(values_a, values_b, interval, test, same, no_worse, detectable)


def _over_seeds(asked: Equivalence, seeds: SeedInterval, n: int, *, lower: bool) -> Equivalence:
    """Repeat an equivalence test with the standard error over seeds and queries."""
    if seeds.note:
        return asked  # tasks of one query: no standard error contains their spread
    mean = -seeds.mean if lower else seeds.mean
    return equivalence_of_estimate(asked.question, mean, seeds.uncertainty, n, asked.margin)


def _of_figure(a: Result, b: Result, asked: _Question) -> _Difference:
    """Compare by one figure of all pairs together."""
    figure = as_pair_metric(a.kind, asked.metric)
    assert figure is not None
    done = compare_figures(
        a.per_query, b.per_query, a.keys, figure, seed=asked.seed, family=asked.family, levels=asked.levels
    )
    n = done.test.n
    answers: list[Equivalence | None] = []
    for question, margin in (("equivalence", asked.margin), ("non-inferiority", asked.no_worse_than)):
        error = single_error(done.found.error, n - 1)
        made = None if margin is None else equivalence_of_estimate(question, done.test.mean, error, n, margin)
        answers.append(made and correct_for(asked.family, made))
    same, no_worse = answers
    return _Difference(done.values_a, done.values_b, done.interval, done.test, same, no_worse, done.detectable)


def _largest(
    keys: list[tuple[str, str]], values_a: npt.NDArray[np.float64], values_b: npt.NDArray[np.float64]
) -> tuple[list[QueryDifference], list[QueryDifference]]:
    """Return the queries with the largest positive and negative differences, largest first; ties by id."""
    queries = [
        QueryDifference(task, query_id, float(value_a), float(value_b), float(value_a - value_b))
        for (task, query_id), value_a, value_b in zip(keys, values_a, values_b, strict=True)
    ]
    wins = sorted((query for query in queries if query.difference > 0), key=lambda query: -query.difference)
    losses = sorted((query for query in queries if query.difference < 0), key=lambda query: query.difference)
    return wins[:SHOWN], losses[:SHOWN]
