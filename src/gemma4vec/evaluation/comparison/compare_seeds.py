"""The sides of a comparison: several runs of a recipe each, to separate the recipe's effect from the seed's.

Scores are averaged over runs query by query; the sign-flip test uses these means. With 6 or more trained runs, interval
and p-value cover seeds and queries (`statistics.seeds`); otherwise they cover queries only. Two runs of one seed, one
on each side, are a pair. A model without a run (bm25, a published one) has no seeds and is held fixed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import numpy.typing as npt

from gemma4vec.errors import InputError
from gemma4vec.evaluation.comparison.comparable import check_limits
from gemma4vec.evaluation.comparison.comparison_count import contents, fingerprint
from gemma4vec.evaluation.results.result import Result, load_result
from gemma4vec.evaluation.results.task_scores import PAIRED
from gemma4vec.files import sha256_text
from gemma4vec.ledger.records import find_enclosing_run
from gemma4vec.statistics.seeds import SeedInterval, seed_interval

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ResultGroup:
    """One side of a comparison: the runs of one recipe, or one model without a run.

    Attributes:
        results: one for each run, all on the same queries.
        seeds: of the runs, in the same order; None if a result has no run or its seed is unknown.
    """

    results: Sequence[Result]
    seeds: Sequence[int | None]

    @property
    def fixed(self) -> bool:
        """Whether the model has no recipe, and so no randomness of training."""
        return len(self.results) == 1 and not (self.results[0].settings.get("run") or {}).get("recipe_id")


def load_group(results: Sequence[Result | Path]) -> ResultGroup:
    """Make a group of results, given directly or by folder; folders add the seeds of their runs.

    Raises:
        InputError: as `result.load_result`.
    """
    runs = [find_enclosing_run(one) if isinstance(one, Path) else None for one in results]
    return ResultGroup(
        [load_result(one) if isinstance(one, Path) else one for one in results],
        [run.manifest.get("seed") if run else None for run in runs],
    )


def average_runs(results: Sequence[Result]) -> Result:
    """Average each query's scores over runs; a single run is returned unchanged.

    Raises:
        InputError: the kind's score is a figure of all pairs together.
    """
    first = results[0]
    if len(results) == 1:
        return first
    if first.kind in PAIRED:
        raise InputError(
            f"{first.metric} on {first.suite} is one figure of all pairs, so several runs cannot be averaged; "
            "compare one run with one"
        )
    metrics = [name for name in first.metrics if all(name in one.metrics for one in results)]
    per_query = {
        task: {query: {name: fmean(one.per_query[task][query][name] for one in results) for name in metrics}
               for query in queries}
        for task, queries in first.per_query.items()
    }  # fmt: skip
    prints = sorted(fingerprint(one) for one in results)
    created = max(str(one.settings.get("created") or "") for one in results)
    settings = {**first.settings, "model_fingerprint": sha256_text(*prints)[:16], "created": created or None}
    return Result(f"{len(results)} runs of {_common_name(results)}", first.suite, per_query, settings)


def over_seeds(a: ResultGroup, b: ResultGroup, metric: str, seed: int, no_sample: str = "") -> SeedInterval | None:
    """Estimate the difference A - B with its uncertainty between seeds; None if each side has one run.

    Args:
        a, b: sides with the same queries.
        seed: of the bootstrap.
        no_sample: why the runs are no sample of their recipes' runs (`scope.why_no_sample`), or empty.
    """
    if len(a.results) == len(b.results) == 1:
        return None
    rows_a, rows_b = _rows(a, metric), _rows(b, metric)
    tasks = [task for task, _ in a.results[0].values(metric)[0]]
    paired = _paired_seeds(a, b)
    if paired:
        rows = np.stack([rows_a[i] - rows_b[j] for i, j in paired])
        return seed_interval(rows, strata=tasks, seed=seed, no_sample=no_sample)
    if b.fixed or a.fixed:
        return seed_interval(rows_a - rows_b, strata=tasks, seed=seed, no_sample=no_sample)
    return seed_interval(rows_a, rows_b, tasks, seed=seed, no_sample=no_sample)


def _rows(side: ResultGroup, metric: str) -> Floats:
    return np.stack([result.values(metric)[1] for result in side.results])


def _paired_seeds(a: ResultGroup, b: ResultGroup) -> list[tuple[int, int]]:
    """Return positions of runs with the same seed, if every run has exactly one partner; else nothing."""
    seeds_a, seeds_b = list(a.seeds), list(b.seeds)
    known = None not in seeds_a and len(set(seeds_a)) == len(seeds_a) > 1
    if not known or set(seeds_a) != set(seeds_b) or len(seeds_a) != len(seeds_b):
        return []
    return [(place, seeds_b.index(one)) for place, one in enumerate(seeds_a)]


def check_alike(results: Sequence[Result], allow_different_settings: bool) -> None:
    """Refuse runs of one side that differ in recipe, contents or limits.

    Raises:
        InputError: they differ, or one is named twice.
    """
    first = results[0]
    recipes = {(one.settings.get("run") or {}).get("recipe_id") for one in results}
    if len(results) > 1 and (len(recipes) > 1 or None in recipes):
        raise InputError(
            f"the runs of one side must be of one recipe, found {', '.join(sorted(map(str, recipes)))}; "
            "compare recipes with each other: gemma4vec compare A1,A2 B1,B2"
        )
    prints = [fingerprint(one) for one in results]
    if len(set(prints)) < len(prints):
        raise InputError("a run is named twice on one side; name each once")
    for one in results[1:]:
        check_same_queries(first, one)
        if not allow_different_settings:
            check_limits(first, one)


def check_same_queries(first: Result, one: Result) -> None:
    """Refuse two runs of one side that cannot be averaged query by query.

    Raises:
        InputError: other contents, or other queries.
    """
    if contents(one) != contents(first):
        raise InputError(f"the runs of one side were evaluated on different contents of {first.suite}; evaluate again")
    if one.keys != first.keys:
        raise InputError(f"the runs of one side were evaluated on different queries of {first.suite}; evaluate again")


def check_disjoint(a: ResultGroup, b: ResultGroup) -> None:
    """Refuse a result on both sides: its differences from itself are zeros, which would count as evidence.

    Raises:
        InputError: one is on both sides.
    """
    seen = {(one.model, look) for one in a.results if (look := one.settings.get("look"))}
    both = next((one for one in b.results if (one.model, one.settings.get("look")) in seen), None)
    if both is not None:
        raise InputError(f"{both.model} on {both.suite} is on both sides; compare it with another result")


def _common_name(results: Sequence[Result]) -> str:
    return str((results[0].settings.get("run") or {}).get("recipe_id") or results[0].model)
