"""Power forecast: the smallest difference that a suite will be able to show, before anything is trained.

The spread of per-query differences is estimated from earlier pairs of models on the same contents, and the spread
between runs from earlier seeds, if the ledger has any. Otherwise a typical spread is assumed.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from gemma4vec.errors import Gemma4VecError
from gemma4vec.evaluation.results.result import load_result
from gemma4vec.files import home
from gemma4vec.ledger.comparison_count import count_family_of_pairs
from gemma4vec.ledger.ledger import Ledger, open_ledger
from gemma4vec.ledger.overview import drop_truncated, recorded_evaluations
from gemma4vec.ledger.records import is_own_model
from gemma4vec.statistics.power import forecast_detectable
from gemma4vec.statistics.stratified import standard_error, stratify

TYPICAL_SD = 0.1  # nDCG@10 of two variants of a recipe: .08 to .1 (docs/concepts/statistics.md)
NEWEST = 4  # number of results whose pairs estimate the spread


@dataclass(frozen=True)
class PowerForecast:
    """The smallest difference that an evaluation will find with 80% probability.

    Attributes:
        alone: as the only comparison.
        in_family: corrected for the comparisons that the ledger counts, and this one.
        family: number of those comparisons.
        sd: assumed standard deviation of per-query differences, scaled as for one task.
        run_sd: standard deviation of run means between seeds; None, and ignored, if unknown.
        basis: source of the two.
    """

    suite: str
    queries: int
    runs: int
    alone: float
    in_family: float
    family: int
    sd: float
    run_sd: float | None
    basis: str

    def sentence(self) -> str:
        """Describe the forecast for a person."""
        family = f", {self.in_family:.3f} as one of {self.family} comparisons" if self.family > 1 else ""
        subject = "two trained models" if self.run_sd is None else f"two recipes with {self.runs} seeds each"
        return (
            f"{self.suite}, {self.queries:,} queries: differences under {self.alone:.3f}{family} will mostly go unseen "
            f"between {subject} ({self.basis})"
        )


def forecast_power(
    suite: str, contents: str, queries: int, metric: str = "ndcg@10", *, runs: int = 1, tasks: Sequence[int] = ()
) -> PowerForecast:
    """Forecast the smallest detectable difference on a suite, before training.

    Args:
        suite: name of the suite.
        contents: fingerprint of the suite.
        queries: number of queries.
        metric: what will be compared.
        runs: number of seeds planned for each recipe.
        tasks: number of queries of each task, if there are several. Tasks have equal weight, so a small task increases
            the variance of the mean.
    """
    usual = TYPICAL_SD
    if tasks:
        usual *= float(np.sqrt(queries * sum(1 / size for size in tasks))) / len(tasks)
    with contextlib.suppress(Gemma4VecError), open_ledger(home(), tolerant=True) as ledger:
        rows = [row for row in drop_truncated(recorded_evaluations(ledger)) if row["suite_fingerprint"] == contents]
        family = 1 + _tries(ledger, contents, metric)
        return _from(rows, suite, queries, metric, runs, family, usual)
    return _from([], suite, queries, metric, runs, 1, usual)


def _from(
    rows: Sequence[Mapping[str, Any]], suite: str, queries: int, metric: str, runs: int, family: int, usual: float
) -> PowerForecast:
    own = [row for row in rows if is_own_model(row["model"]) and metric in row["mean"]]
    spreads = _spreads(own, metric)
    sd = median(spreads) if spreads else usual
    basis = (
        f"as {len(spreads)} earlier pairs here differ" if spreads else f"if queries differ as usual, by {TYPICAL_SD}"
    )
    run_sd = _run_sd(own, metric) if runs > 1 else None

    def found(size: int) -> float:
        return forecast_detectable(sd, queries, runs=runs, run_sd=run_sd or 0.0, family=size)

    return PowerForecast(suite, queries, runs, found(1), found(family), family, sd, run_sd, basis)


def _spreads(rows: Sequence[Mapping[str, Any]], metric: str) -> list[float]:
    """Estimate the standard deviation of per-query differences for each pair of the newest results on disk."""
    results = []
    for row in reversed(rows):
        with contextlib.suppress(Gemma4VecError):
            results.append(load_result(Path(row["folder"])))
        if len(results) == NEWEST:
            break
    spreads = []
    for one, other in combinations(results, 2):
        keys, values_N = one.values(metric)
        keys_other, others_N = other.values(metric)
        if keys == keys_other:
            error, _ = standard_error(stratify(values_N - others_N, [task for task, _ in keys]))
            spreads.append(error * len(keys) ** 0.5)
    return [spread for spread in spreads if spread > 0.0]


def _run_sd(rows: Sequence[Mapping[str, Any]], metric: str) -> float | None:
    """Estimate the standard deviation of run means between runs of one recipe, pooled over recipes."""
    by_recipe: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["recipe_id"]:
            by_recipe.setdefault(row["recipe_id"], {})[row["run_id"]] = row["mean"][metric]
    several = [list(scores.values()) for scores in by_recipe.values() if len(scores) > 1]
    freedom = sum(len(scores) - 1 for scores in several)
    if not freedom:
        return None
    return float(np.sqrt(sum(np.var(scores, ddof=1) * (len(scores) - 1) for scores in several) / freedom))


def _tries(ledger: Ledger, contents: str, metric: str) -> int:
    """Count the comparisons on these contents in the ledger, as those are counted that a verdict is corrected for."""
    return count_family_of_pairs(ledger, contents, metric, []).size
