"""Per-query scores of several runs on several suites, and the paired difference of two recipes."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gemma4vec.errors import WorkError
from gemma4vec.evaluation.results.result import Result
from gemma4vec.evaluation.scoring.contamination_mark import touched_queries
from gemma4vec.statistics.bootstrap import Interval, Method, mean_interval
from gemma4vec.statistics.equivalence import Equivalence, equivalence_of_estimate, equivalence_test
from gemma4vec.statistics.paired import SignFlip, sign_flip_test
from gemma4vec.statistics.seeds import SeedInterval, seed_interval
from gemma4vec.statistics.student import t_interval
from gemma4vec.statistics.verdict import evidence

Key = tuple[str, str, str]  # suite, task, query id


@dataclass(frozen=True)
class Scores:
    """One value a query over all suites. The strata are the suites' tasks; each counts the same."""

    keys: list[Key]
    values_N: npt.NDArray[np.float64]

    @property
    def strata(self) -> list[str]:
        """Stratum of each query."""
        return [f"{suite}/{task}" for suite, task, _ in self.keys]

    @property
    def interval(self) -> Interval:
        """Mean over suites with its 95% bootstrap interval over queries."""
        return mean_interval(self.values_N, self.strata)


@dataclass(frozen=True)
class Difference:
    """A minus B, query by query.

    Attributes:
        values_N, strata: the difference of each query (averaged over seeds) and its stratum.
        interval: over seeds and queries if there are at least 6 seeds, else over queries.
        test: sign flips over queries, which take the runs as they are.
        seeds: over queries, and also over seeds if there are at least 6; its p is then the verdict's.
        touched: number of queries that training data of either side touches; they are left out of everything else.
        none_left: whether it touches all queries; the figures are then those of all, and show nothing.
    """

    values_N: npt.NDArray[np.float64]
    strata: list[str]
    interval: Interval
    test: SignFlip
    seeds: SeedInterval
    touched: int = 0
    none_left: bool = False

    @property
    def p(self) -> float:
        """The uncorrected p-value that a verdict rests on."""
        return 1.0 if self.none_left else evidence(self.test, self.seeds)

    def equivalence(self, margin: float) -> Equivalence:
        """Test "within the margin", over seeds and queries if there are at least 6 seeds, else over queries."""
        seeds = self.seeds
        if not seeds.over_seeds or seeds.note:
            return equivalence_test(self.values_N, margin, self.strata)
        n = len(self.values_N)
        return equivalence_of_estimate("equivalence", seeds.mean, seeds.uncertainty, n, margin)


def average_query_scores(
    runs: Sequence[Sequence[Result]], metric: str, without: Collection[Key] = frozenset()
) -> Scores:
    """Average each query's score over runs (seeds), without some queries; all runs have results on the same suites.

    Raises:
        WorkError: the runs were measured on different queries.
    """
    rows = []
    keys: list[Key] = []
    for results in runs:
        found: dict[Key, float] = {}
        for result in results:
            pairs, values_N = result.values(metric)
            found |= {
                key: float(value)
                for (task, query), value in zip(pairs, values_N, strict=True)
                if (key := (result.suite, task, query)) not in without
            }
        if keys and sorted(found) != keys:
            raise WorkError("runs of one matrix were measured on different queries; delete their evals and run again")
        keys = sorted(found)
        rows.append([found[key] for key in keys])
    return Scores(keys, np.mean(np.array(rows, dtype=np.float64), axis=0))


def paired_difference(
    a: Sequence[Sequence[Result]], b: Sequence[Sequence[Result]], metric: str, levels: Sequence[float] = (0.05,)
) -> Difference:
    """Mean difference A - B over suites: interval and sign-flip test over queries, stratified by suite, and over seeds.

    Args:
        a, b: for each seed, the results on every suite, in the same order of seeds. Two runs of one seed saw the same
            batches and form a pair. Scores are averaged over seeds first, so each query is one pair. Queries that
            training data of any of these runs touches are left out.
        metric: the metric to compare.
        levels: values that the uncorrected p will be compared with (`multiplicity.decision_levels`).

    Raises:
        WorkError: A and B were measured on different queries.
    """
    touched = {
        (result.suite, *item)
        for side in (a, b)
        for results in side
        for result in results
        for item in touched_queries(result)
    }
    none_left = bool(touched) and not average_query_scores(a, metric, touched).keys
    without: Collection[Key] = frozenset() if none_left else touched
    ours, theirs = (average_query_scores(side, metric, without) for side in (a, b))
    if ours.keys != theirs.keys:
        raise WorkError("two runs of one matrix were measured on different queries; delete their evals and run again")
    difference_N = ours.values_N - theirs.values_N
    by_seed_RN = [
        average_query_scores([one], metric, without).values_N - average_query_scores([other], metric, without).values_N
        for one, other in zip(a, b, strict=True)
    ]
    interval = t_interval(difference_N, ours.strata)
    seeds = seed_interval(np.array(by_seed_RN), strata=ours.strata)
    if seeds.over_seeds:
        method: Method = "percentile" if seeds.high > seeds.low else "degenerate"
        interval = Interval(seeds.mean, seeds.low, seeds.high, seeds.confidence, method, interval.n, interval.note)
    test = sign_flip_test(difference_N, ours.strata, levels=levels)
    return Difference(difference_N, ours.strata, interval, test, seeds, len(touched), none_left)
