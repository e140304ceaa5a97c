"""The forecast of a remedy's gain: from the spread of trainings from one base, where the ledger has their scores."""

from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
from planted_suite import DIMENSION, PlantedModel, planted_suite

from gemma4vec.evaluation.results.result import Result
from gemma4vec.evaluation.scoring.bm25_model import Bm25Model
from gemma4vec.evaluation.scoring.evaluate import evaluate
from gemma4vec.inspection.inspect import inspect
from gemma4vec.inspection.inspected import Subject
from gemma4vec.inspection.inspection_files import load_columns, load_inspection
from gemma4vec.inspection.predicates import parse_predicate
from gemma4vec.inspection.remedy.forecast import GainForecast, forecast_gain
from gemma4vec.inspection.remedy.judge import detectable_effect
from gemma4vec.recipe.load import load_recipe
from gemma4vec.recipe.schema import Recipe
from gemma4vec.training.run import start_run

SUITE, RULE = planted_suite(160), parse_predicate("digits is yes")
ALONE = "; two trainings from one base differ less, and the ledger has no other one's scores on this suite"


class Trained(PlantedModel):
    """A training: vectors of all texts are off, mostly as those of every other training."""

    def _vector(self, text: str) -> np.ndarray:
        found = super()._vector(text.replace("7", "x"))
        for size, seed in ((0.2, text), (0.05, self.fingerprint + text)):
            found = found + size * np.random.default_rng(list(seed.encode())).normal(size=DIMENSION)
        return np.asarray(found / np.linalg.norm(found), dtype=np.float32)


def recipe(tmp_path: Path, base: str = "bundled:one") -> Recipe:
    (tmp_path / "rows.jsonl").write_text('{"query": "a", "pos": ["b"]}\n')
    stage = {"data": [{"name": "pairs", "path": str(tmp_path / "rows.jsonl")}], "budget": {"steps": 2}}
    return load_recipe({"name": "small", "model": {"base": base}, "stages": [stage]})


def score(model: PlantedModel, trained_with: Recipe) -> Result:
    """A run of the recipe whose model is this one, evaluated as `gemma4vec eval` does."""
    run = start_run(trained_with)
    return evaluate(model, SUITE, run.evaluation("trained", SUITE.name), name="trained", run=run)


@pytest.fixture
def found(tmp_path: Path) -> Path:
    folder = tmp_path / "found"
    inspect(Subject(Trained(), "planted"), SUITE, folder, against=Subject(Bm25Model(), "bm25"))
    return folder


def forecast(folder: Path, changed: Recipe, **about: Any) -> GainForecast:
    return forecast_gain(load_columns(folder), load_inspection(folder)[0] | about, RULE, changed, 2)


def expected(folder: Path, result: Result | None) -> float:
    """From the columns on disk, by hand."""
    columns = load_columns(folder)
    inside = [row for row, digit in enumerate(columns["digits"]) if digit]
    open_rows = [row for row in inside if columns["half"][row] == "discovery"]
    values = {} if result is None else result.per_query[SUITE.name]
    other = [values[columns["query_id"][row]]["ndcg@10"] if values else columns["against"][row] for row in open_rows]
    own = [columns["ndcg@10"][row] for row in open_rows]
    return detectable_effect(np.subtract(own, other), len(inside) - len(open_rows), 2)


def test_other_trainings_from_the_base_tell_the_spread(found: Path, tmp_path: Path) -> None:
    changed = recipe(tmp_path)
    plain = forecast(found, changed)
    assert plain == GainForecast(expected(found, None), f"the model's differences to bm25{ALONE}")
    score(Trained("far"), recipe(tmp_path, "bundled:other"))  # another base
    score(Trained(), changed)  # the inspected model itself
    assert forecast(found, changed) == plain
    first = score(Trained("1"), changed)
    one = forecast(found, changed)
    assert one == GainForecast(expected(found, first), "the model's differences to another training from this base")
    assert 0.0 < one.gain < plain.gain
    others = [first, *(score(Trained(name), changed) for name in ("2", "3"))]
    several = forecast(found, changed)
    assert several.basis == "the model's differences to 3 other trainings from this base"
    assert several.gain == median(expected(found, result) for result in others)


def test_without_another_model_the_values_alone_tell_it(tmp_path: Path) -> None:
    inspect(Subject(Trained(), "planted"), SUITE, tmp_path / "alone")
    found = forecast(tmp_path / "alone", recipe(tmp_path))
    assert found.gain > 0.0 and found.basis == f"the model's own values{ALONE}"


def test_a_ledger_that_cannot_be_read_costs_the_better_spread_alone(found: Path, tmp_path: Path) -> None:
    changed = recipe(tmp_path)
    score(Trained("1"), changed)
    for file in (tmp_path / "runs").glob("ledger*"):
        file.write_bytes(b"no ledger")
    assert forecast(found, changed).basis.startswith("the model's differences to bm25")
