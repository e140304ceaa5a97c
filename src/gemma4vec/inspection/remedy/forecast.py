"""The gain that the sealed half will show, before a remedy is trained: from how far earlier pairs of models differ.

A remedied model and the one before it have one base and mostly the same rows, so that query by query they differ less
than either does from BM25. Where the ledger has scores of other trainings from that base, their spread is used.

Legend: N queries.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from gemma4vec.errors import Gemma4VecError
from gemma4vec.evaluation.planning.power_forecast import NEWEST
from gemma4vec.evaluation.results.result import Result, load_result
from gemma4vec.files import home
from gemma4vec.inspection.predicates import Predicate
from gemma4vec.inspection.remedy.judge import detectable_effect
from gemma4vec.inspection.sealed import DISCOVERY, SEALED
from gemma4vec.ledger.ledger import open_ledger
from gemma4vec.ledger.overview import all_runs, drop_truncated, recorded_evaluations
from gemma4vec.ledger.records import is_own_model, recipe_tree
from gemma4vec.recipe.schema import Recipe


@dataclass(frozen=True)
class GainForecast:
    """What the sealed half will show.

    Attributes:
        gain: shown four times out of five; infinity where no spread is known.
        basis: whose differences the spread is of, in words.
    """

    gain: float
    basis: str


def forecast_gain(
    columns: Mapping[str, list[Any]], about: Mapping[str, Any], predicate: Predicate, recipe: Recipe, family: int
) -> GainForecast:
    """Forecast from the open half's queries in the slice; of several pairs the median counts.

    Args:
        columns: the inspection's columns of queries.
        about: its inspection.json.
        predicate: the slice.
        recipe: what a remedy changes.
        family: slices opened on these contents, this one included.
    """
    mask_N = predicate.mask(columns)
    inside = [row for row, half in enumerate(columns["half"]) if half == DISCOVERY and mask_N[row]]
    sealed = sum(half == SEALED and bool(mask_N[row]) for row, half in enumerate(columns["half"]))
    own_N = np.array([columns[about["metric"]][row] for row in inside])
    ids = [columns["query_id"][row] for row in inside]

    def shown(other_N: object) -> float:
        return detectable_effect(own_N - np.array(other_N), sealed, family)

    gains = []
    for result in _other_trainings(about, recipe):
        keys, values_N = result.values(about["metric"])
        values = dict(zip((query for _, query in keys), values_N.tolist(), strict=True))
        if all(one in values for one in ids) and (gain := shown([values[one] for one in ids])) > 0.0:
            gains.append(gain)
    if gains:
        pairs = "another training" if len(gains) == 1 else f"{len(gains)} other trainings"
        return GainForecast(median(gains), f"the model's differences to {pairs} from this base")
    alone = "; two trainings from one base differ less, and the ledger has no other one's scores on this suite"
    if about["against"] is None:
        return GainForecast(shown([0.0] * len(ids)), f"the model's own values{alone}")
    other_N = [columns["against"][row] for row in inside]
    return GainForecast(shown(other_N), f"the model's differences to {about['against']['name']}{alone}")


def _other_trainings(about: Mapping[str, Any], recipe: Recipe) -> Iterator[Result]:
    """The newest scores, on these contents, of other runs from the base and the start of a recipe."""
    contents, metric, found = about["suite"]["fingerprint"], about["metric"], 0
    with contextlib.suppress(Gemma4VecError), open_ledger(home(), tolerant=True) as ledger:
        alike = {run["run_id"] for run in all_runs(ledger) if _from_the_same(run["recipe"], recipe)}
        rows = [row for row in drop_truncated(recorded_evaluations(ledger)) if row["suite_fingerprint"] == contents]
        newest = {row["run_id"]: row for row in rows if is_own_model(row["model"]) and metric in row["mean"]}
        for run_id, row in sorted(newest.items(), key=lambda one: str(one[1]["time"]), reverse=True):
            if run_id not in alike or found == NEWEST:
                continue
            with contextlib.suppress(Gemma4VecError):
                result = load_result(Path(row["folder"]))
                if result.settings.get("model_fingerprint") != about["model"]["fingerprint"]:
                    found += 1
                    yield result


def _from_the_same(text: str | None, recipe: Recipe) -> bool:
    model = recipe_tree(text).get("model")
    wanted = recipe.model
    return isinstance(model, dict) and (model.get("base"), model.get("start")) == (wanted.base, wanted.start)
