"""Relative paths of a recipe are found from any folder; names that are no paths stay names."""

from pathlib import Path
from typing import Any

import pytest

from gemma4vec.recipe.load import load_recipe
from gemma4vec.recipe.recorded.paths import missing_path, with_absolute_paths

RECIPE: dict[str, Any] = {
    "name": "paths",
    "model": {"base": "base", "readout": {"name": "contextual_token", "encoder": "small"}, "attention": "causal"},
    "stages": [
        {
            "data": [
                {"name": "a", "path": "rows.jsonl", "drop": "drops.jsonl"},
                {"name": "b", "source": "datasets", "path": "owner/name"},
                {"name": "c", "source": "pycode"},
            ],
            "task": {
                "terms": [
                    {"kind": "nce"},
                    {"kind": "matching", "name": "m", "teacher": "teacher", "form": "relational"},
                    {"kind": "matching", "name": "v", "vectors": "v.jsonl", "form": "relational"},
                ]
            },
            "evaluation": {
                "suite": "dev",
                "stop": {"reference": "bm25", "smallest_effect": 0.01, "at_steps": [2]},
            },
            "budget": {"steps": 4},
        }
    ],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("base", "small", "teacher"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_paths_become_absolute_and_names_stay(folder: Path) -> None:
    found = with_absolute_paths(load_recipe(RECIPE), folder)
    stage = found.stages[0]
    assert found.model.base == str(folder / "base")
    assert found.model.readout.encoder == str(folder / "small")  # type: ignore[union-attr]
    assert [source.path for source in stage.data] == [str(folder / "rows.jsonl"), "owner/name", None]
    assert stage.data[0].drop == str(folder / "drops.jsonl")
    _, matched, vectors = stage.task.terms  # type: ignore[union-attr]
    assert matched.teacher == str(folder / "teacher") and vectors.vectors == str(folder / "v.jsonl")
    assert stage.evaluation.suite == str(folder / "dev")
    assert stage.evaluation.stop is not None and stage.evaluation.stop.reference == "bm25"
    assert with_absolute_paths(found, folder / "other") == found


def test_a_hub_model_is_no_path(folder: Path) -> None:
    for base in ("google/gemma-4-E2B-it", "bundled:gemma-3-270m", str(folder / "base")):
        recipe = load_recipe(RECIPE, {"model.base": base})
        assert with_absolute_paths(recipe, folder).model.base == base


def test_the_first_missing_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert missing_path(load_recipe(RECIPE)) == "rows.jsonl"
    (folder / "rows.jsonl").touch()
    assert missing_path(load_recipe(RECIPE)) == "drops.jsonl"
    for name in ("drops.jsonl", "dev", "v.jsonl"):
        (folder / name).touch()
    assert missing_path(load_recipe(RECIPE)) is None
