"""Per-query scores of several runs on several suites, and the paired difference of two recipes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gemma4vec.errors import WorkError
from gemma4vec.evaluation.results.result import Result
from gemma4vec.statistics.bootstrap import Interval, mean_interval
from gemma4vec.statistics.paired import SignFlip, sign_flip_test
from gemma4vec.statistics.seeds import SeedInterval, seed_interval
from gemma4vec.statistics.student import t_interval

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
        interval, test: over queries.
        seeds: over queries, and also over seeds if there are at least 6.
    """

    values_N: npt.NDArray[np.float64]
    strata: list[str]
    interval: Interval
    test: SignFlip
    seeds: SeedInterval


def average_query_scores(runs: Sequence[Sequence[Result]], metric: str) -> Scores:
    """Average each query's score over runs (seeds); all runs have results on the same suites.

    Raises:
        WorkError: the runs were measured on different queries.
    """
    rows = []
    keys: list[Key] = []
    for results in runs:
        found: dict[Key, float] = {}
        for result in results:
            pairs, values_N = result.values(metric)
            found |= {(result.suite, task, query): float(v) for (task, query), v in zip(pairs, values_N, strict=True)}
        if keys and sorted(found) != keys:
            raise WorkError("runs of one matrix were measured on different queries; delete their evals and run again")
        keys = sorted(found)
        rows.append([found[key] for key in keys])
    return Scores(keys, np.mean(np.array(rows, dtype=np.float64), axis=0))


def paired_difference(a: Sequence[Sequence[Result]], b: Sequence[Sequence[Result]], metric: str) -> Difference:
    """Mean difference A - B over suites: Student's interval and sign-flip test over queries, stratified by suite.

    Args:
        a, b: for each seed, the results on every suite, in the same order of seeds. Two runs of one seed saw the same
            batches and form a pair. Scores are averaged over seeds first, so each query is one pair.
        metric: the metric to compare.

    Raises:
        WorkError: A and B were measured on different queries.
    """
    ours, theirs = average_query_scores(a, metric), average_query_scores(b, metric)
    if ours.keys != theirs.keys:
        raise WorkError("two runs of one matrix were measured on different queries; delete their evals and run again")
    difference_N = ours.values_N - theirs.values_N
    by_seed_RN = [
        average_query_scores([one], metric).values_N - average_query_scores([other], metric).values_N
        for one, other in zip(a, b, strict=True)
    ]
    return Difference(
        difference_N,
        ours.strata,
        t_interval(difference_N, ours.strata),
        sign_flip_test(difference_N, ours.strata),
        seed_interval(np.array(by_seed_RN), strata=ours.strata),
    )
