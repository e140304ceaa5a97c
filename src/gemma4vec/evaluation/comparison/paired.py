"""The paired comparison of two results, query by query: the difference A - B, its interval and its test.

`_compare_uncorrected` ignores other comparisons, so it is private to evaluation/. All other callers use the functions
that take the family's size from the ledger.
"""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from gemma4vec.data.suites.kinds import LOWER_IS_BETTER
from gemma4vec.errors import InputError
from gemma4vec.evaluation.comparison.compare_figures import as_pair_metric, compare_figures
from gemma4vec.evaluation.results.result import Result
from gemma4vec.evaluation.scoring.contamination_mark import UntouchedComparison, compare_without_touched
from gemma4vec.ledger.comparison_count import ComparisonFamily
from gemma4vec.statistics.bootstrap import Interval
from gemma4vec.statistics.equivalence import (
    Equivalence,
    equivalence_of_estimate,
    equivalence_test,
    non_inferiority_test,
)
from gemma4vec.statistics.multiplicity import adjust
from gemma4vec.statistics.paired import SignFlip, sign_flip_test
from gemma4vec.statistics.power import smallest_detectable
from gemma4vec.statistics.seeds import SeedInterval
from gemma4vec.statistics.student import t_interval
from gemma4vec.statistics.verdict import Verdict, decide

SHOWN = 10  # number of largest differences in each direction
Doubles = npt.NDArray[np.float64]
LIMIT_WORDS = ("max_tokens", "token_limit", "max_seq_length", "truncat")


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
        interval: mean difference A - B with its 95% t interval over queries (reasons: docs/concepts/statistics.md).
        test: paired sign-flip test.
        verdict: of A ("better", "worse", ...), with the family's size and the correction.
        smallest_detectable: mean difference that these queries find with 80% probability.
        equivalence: test of "within the margin", if a margin was given.
        no_worse: test of "A is worse by less than this", if requested.
        seeds: interval over seeds and queries, if A or B has several runs.
        without_touched: the comparison without queries that either's training data touches, if there are any.
        kind: of the suite's tasks.
        wins, losses, ties: queries where A is above, below, equal to B.
        largest_wins, largest_losses: queries with the largest differences.
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
    without_touched: UntouchedComparison | None = None
    family: ComparisonFamily | None = None

    @property
    def difference(self) -> float:
        """Mean difference A - B."""
        return self.interval.mean

    def sentence(self) -> str:
        """Describe the result in one sentence."""
        word = {
            "better": f"{self.a} is better than {self.b}",
            "worse": f"{self.a} is worse than {self.b}",
            "equivalent": f"{self.a} and {self.b} are equivalent",
            "undetermined": f"undetermined whether {self.a} or {self.b} is better",
        }[self.verdict.word]
        return (
            f"{word} on {self.suite}: {self.metric} {self.mean_a:.4f} against {self.mean_b:.4f}, difference "
            f"{self.difference:+.4f}; {self.verdict.reason}."
        )

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
    seeds: SeedInterval | None = None,
    detectable: float | None = None,
    allow_different_settings: bool = False,
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
        seeds: interval of A - B for means of several runs; it replaces Student's if it covers seeds.
        detectable: smallest detectable difference, if the caller knows more than these queries show (seeds).
        allow_different_settings: compare even if the models truncate texts at different lengths.

    Raises:
        InputError: different suites or queries, a metric that one lacks, different truncation limits.
    """
    metric = metric or a.metric
    differing = check_comparable(a, b, metric, allow_different_settings=allow_different_settings)
    keys, lower = a.keys, metric in LOWER_IS_BETTER
    asked = _Question(metric, margin, no_worse_than, seed, resamples, family)
    found = _of_figure(a, b, asked) if as_pair_metric(a.kind, metric) else _of_means(a, b, asked, seeds)
    if detectable is None:
        detectable = found.detectable
    interval, test, same = found.interval, found.test, found.same
    values_a, values_b = found.values_a, found.values_b
    (adjusted,) = adjust([test.p], "none" if family == 1 else "holm", family)
    wins, losses = _largest(keys, values_a, values_b)
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
            equivalence=same,
            adjusted=adjusted,
            smallest_detectable=detectable,
            lower_is_better=lower,
        ),
        smallest_detectable=detectable,
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
        without_touched=compare_without_touched(a, b, metric, seed=seed),
    )


class LargestDifferences(NamedTuple):
    """The queries with the largest differences A - B in each direction, largest first."""

    largest_wins: list[QueryDifference]
    largest_losses: list[QueryDifference]


def largest_differences(a: Result, b: Result, metric: str) -> LargestDifferences:
    """Return queries to look at. There is no verdict, so the ledger counts no comparison.

    Args:
        metric: one whose score is a mean over queries.

    Raises:
        InputError: as `check_comparable`.
    """
    check_comparable(a, b, metric)
    return LargestDifferences(*_largest(a.keys, a.values(metric)[1], b.values(metric)[1]))


class _Question(NamedTuple):
    """The settings of one comparison of two results on the same queries."""

    metric: str
    margin: float | None
    no_worse_than: float | None
    seed: int
    resamples: int
    family: int


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
    if seeds is not None and seeds.over_seeds:
        interval = Interval(seeds.mean, seeds.low, seeds.high, seeds.confidence, "percentile", interval.n)
    test = sign_flip_test(difference_N, tasks, flips=asked.resamples, seed=asked.seed)
    gain_N = -difference_N if asked.metric in LOWER_IS_BETTER else difference_N
    same = None if asked.margin is None else equivalence_test(difference_N, asked.margin, tasks)
    no_worse = None if asked.no_worse_than is None else non_inferiority_test(gain_N, asked.no_worse_than, tasks)
    if seeds is not None and seeds.over_seeds:  # about the recipes, not about these runs
        same = same and _over_seeds(same, seeds, interval.n, lower=False)
        no_worse = no_worse and _over_seeds(no_worse, seeds, interval.n, lower=asked.metric in LOWER_IS_BETTER)
    detectable = smallest_detectable(difference_N, tasks, family=asked.family)
    return _Difference(values_a, values_b, interval, test, same, no_worse, detectable)


def _over_seeds(asked: Equivalence, seeds: SeedInterval, n: int, *, lower: bool) -> Equivalence:
    """Repeat an equivalence test with the variance between seeds in its standard error.

    The half-width of the interval is Student's; dividing it by the normal quantile overestimates the error a little,
    which is conservative.
    """
    error = (seeds.high - seeds.low) / 2.0 / float(stats.norm.ppf(0.5 + seeds.confidence / 2.0))
    return equivalence_of_estimate(asked.question, -seeds.mean if lower else seeds.mean, error, n, asked.margin)


def _of_figure(a: Result, b: Result, asked: _Question) -> _Difference:
    """Compare by one figure of all pairs together."""
    figure = as_pair_metric(a.kind, asked.metric)
    assert figure is not None
    done = compare_figures(a.per_query, b.per_query, a.keys, figure, seed=asked.seed, family=asked.family)
    mean, error, n = done.test.mean, done.found.error, done.test.n
    same = None if asked.margin is None else equivalence_of_estimate("equivalence", mean, error, n, asked.margin)
    asked_worse = asked.no_worse_than
    no_worse = None if asked_worse is None else equivalence_of_estimate("non-inferiority", mean, error, n, asked_worse)
    return _Difference(done.values_a, done.values_b, done.interval, done.test, same, no_worse, done.detectable)


def check_comparable(
    a: Result, b: Result, metric: str, *, allow_different_settings: bool = False
) -> dict[str, tuple[Any, Any]]:
    """Refuse two results whose comparison would not be fair; return the other settings that differ.

    Raises:
        InputError: different suites or queries, a metric that one lacks, different truncation limits.
    """
    _check_same_suite(a, b)
    differing = differing_settings(a, b)
    if not allow_different_settings:
        check_limits(a, b)
    for one in (a, b):
        if metric not in one.metrics:
            raise InputError(f"{one.model} on {one.suite} has no metric '{metric}'; it has {', '.join(one.metrics)}")
    if a.keys != b.keys:
        raise InputError(_different_queries(a, b, a.keys, b.keys))
    return differing


def differing_settings(a: Result, b: Result) -> dict[str, tuple[Any, Any]]:
    """Return the settings of model and ranking that both results have and that differ, by dotted name."""
    flat_a, flat_b = _flat(a.settings.get("model")), _flat(b.settings.get("model"))
    depths = [(result.settings.get("ranking") or {}).get("depth") for result in (a, b)]
    differing = {
        name: (flat_a[name], flat_b[name]) for name in flat_a if name in flat_b and flat_a[name] != flat_b[name]
    }
    if None not in depths and depths[0] != depths[1]:
        differing["depth"] = (depths[0], depths[1])
    return differing


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested dictionaries to dotted names."""
    if not isinstance(value, dict):
        return {prefix: value} if prefix else {}
    flat: dict[str, Any] = {}
    for name, item in value.items():
        flat.update(_flat(item, f"{prefix}.{name}" if prefix else str(name)))
    return flat


def _check_same_suite(a: Result, b: Result) -> None:
    """Refuse results whose queries, documents or judgments are not the same."""
    prints = [(result.settings.get("suite") or {}).get("fingerprint") for result in (a, b)]
    if None not in prints and prints[0] != prints[1]:
        raise InputError(
            f"A was evaluated on {a.suite} ({str(prints[0])[:12]}) and B on {b.suite} ({str(prints[1])[:12]}): "
            "not the same queries, documents and judgments; evaluate both on one suite"
        )


def check_limits(a: Result, b: Result) -> None:
    """Refuse results of models that read different amounts of each text.

    Raises:
        InputError: different truncation limits or depths.
    """
    differing = differing_settings(a, b)
    limits = [name for name in differing if any(word in name for word in LIMIT_WORDS)]
    if "depth" in differing or limits:
        name = limits[0] if limits else "depth"
        value_a, value_b = differing[name]
        raise InputError(
            f"{a.model} was evaluated with {name} {value_a} and {b.model} with {value_b}; evaluate again with the same "
            "--max-tokens, or pass --allow-different-settings"
        )


def _different_queries(a: Result, b: Result, keys_a: list[tuple[str, str]], keys_b: list[tuple[str, str]]) -> str:
    """Describe in one line which queries differ."""
    only_a, only_b = sorted(set(keys_a) - set(keys_b)), sorted(set(keys_b) - set(keys_a))
    task, query_id = (only_a or only_b)[0]
    return (
        f"{a.model} and {b.model} were not evaluated on the same queries: {len(only_a)} only in A, {len(only_b)} only "
        f"in B (first: '{query_id}' of {task}); evaluate both on one suite"
    )


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
