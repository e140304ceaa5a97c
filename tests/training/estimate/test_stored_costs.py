"""A stored measurement is the measurement, and only for what it was made of."""

import json
import time
from pathlib import Path

import pytest
import torch

from gemma4vec.model.backbone.compilation import CompileChoice
from gemma4vec.recipe import schema
from gemma4vec.recipe.load import parse_recipe
from gemma4vec.training.estimate.layers import LayerCosts
from gemma4vec.training.estimate.stored_costs import costs_file, load_costs, save_costs

RECIPE = """
name: tiny
model: {base: base}
stages: [{data: [{name: rows, path: rows.jsonl}], budget: {steps: 3}}]
"""
KINDS = [("sliding", "own", False), ("full", "own", True)]
COSTS = LayerCosts(
    compile=CompileChoice(True, "it pays off"),
    seconds={(None, True): 0.1, (KINDS[0], True): 0.25, (KINDS[1], False): 1e-9},
    kept_bytes={(None, True): 3.0, (KINDS[0], True): 4.0},
    eager_kept_bytes={(KINDS[1], False): 5.5},
    optimizer_seconds=0.3,
    optimizer_parameters=12,
    peak_bytes=None,
    peak_cells={True: 96.0, False: 4.0},
    kinds=KINDS,
)


def file_of(*changes: str, rows: str = "a") -> Path:
    recipe: schema.Recipe = parse_recipe(RECIPE, "recipe.yaml", list(changes))
    facts = {"rows": {"content_hash": rows}}
    return costs_file(recipe, recipe.stages[0], {"layers": 2}, facts, device="cpu", dtype=torch.float32, compiled=True)


def test_it_reads_what_was_written() -> None:
    save_costs(file_of(), COSTS, 7.5e8)
    assert load_costs(file_of()) == (COSTS, 7.5e8)


@pytest.mark.parametrize(
    "change", ["stages.0.budget.steps=9", "stages.0.optimizer.learning_rate=1", "name=x", "seed=3", "hypothesis=x"]
)
def test_what_costs_the_same_uses_it(change: str) -> None:
    assert file_of(change) == file_of()


@pytest.mark.parametrize(
    "change", ["model.readout=last_token", "stages.0.batch.rows=8", "stages.0.layout.kind=padded", "model.lora.rank=3"]
)
def test_what_costs_otherwise_does_not(change: str) -> None:
    assert file_of(change) != file_of() != file_of(rows="b")


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"time": "x"}', '{"time": 1e999}'])
def test_a_damaged_one_is_measured_again(damage: str) -> None:
    save_costs(file_of(), COSTS, 1.0)
    file_of().write_text(damage, encoding="utf-8")
    assert load_costs(file_of()) is None
    file_of().unlink()
    assert load_costs(file_of()) is None


@pytest.mark.parametrize("days", [-1, 8])
def test_an_old_one_is_measured_again(days: int) -> None:
    save_costs(file_of(), COSTS, 1.0)
    value = json.loads(file_of().read_text(encoding="utf-8"))
    value["time"] = time.time() - days * 86_400
    file_of().write_text(json.dumps(value), encoding="utf-8")
    assert load_costs(file_of()) is None
