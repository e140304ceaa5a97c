"""`make same-loss` can fail: one bit in one number of one step is found and named."""

import copy
import json
import math

import pytest

import same_loss
from same_loss_recipes import Json, Tree, recipes


@pytest.fixture
def stored() -> Tree:
    return json.loads(same_loss.STORED.read_text(encoding="utf-8"))


def step_of(values: Tree, recipe: str, number: int) -> Tree:
    trained: Json = values["recipes"]
    for key in (recipe, "steps", number - 1):
        trained = trained[key]
    assert isinstance(trained, dict)
    return trained


def test_stored_values_are_of_all_recipes_and_steps(stored: Tree) -> None:
    trained = stored["recipes"]
    assert isinstance(trained, dict)
    assert list(trained) == list(recipes())
    for name, recipe in recipes().items():
        stages = recipe["stages"]
        assert isinstance(stages, list)
        steps = sum(stage["budget"]["steps"] for stage in stages)
        assert len(trained[name]["steps"]) == steps > 0


def test_equal_values_are_equal(stored: Tree) -> None:
    assert same_loss.first_difference(stored, copy.deepcopy(stored)) == ""


@pytest.mark.parametrize(("recipe", "field"), [("packed", "loss"), ("full", "gradient_norm"), ("terms", "terms.gor")])
def test_one_bit_is_found_and_named(stored: Tree, recipe: str, field: str) -> None:
    changed = copy.deepcopy(stored)
    step = step_of(changed, recipe, 4)
    value = step[field]
    assert isinstance(value, float)
    step[field] = math.nextafter(value, math.inf)
    found = same_loss.first_difference(stored, changed)
    assert found.startswith(f"{recipe}, stage 0 step 4: {field} is ")
    assert repr(value) in found and repr(step[field]) in found


def test_a_missing_field_step_or_recipe_is_found_and_a_new_field_is_not(stored: Tree) -> None:
    without_field, with_field, without_step, without_recipe = (copy.deepcopy(stored) for _ in range(4))
    del step_of(without_field, "terms", 1)["temperature"]
    assert "terms, stage 0 step 1: temperature is None" in same_loss.first_difference(stored, without_field)
    step_of(with_field, "terms", 1)["entropy"] = 1.0
    assert same_loss.first_difference(stored, with_field) == ""
    trained = without_step["recipes"]
    trained["two_stages"]["steps"].pop()
    assert same_loss.first_difference(stored, without_step) == "two_stages, steps: 7, were 8"
    del without_recipe["recipes"]["scores"]
    assert "scores: the recipe was trained on one side only" in same_loss.first_difference(stored, without_recipe)
    assert "scores: the recipe was trained on one side only" in same_loss.first_difference(without_recipe, stored)


def test_signs_of_zero_and_nan_are_told_apart(stored: Tree) -> None:
    zero, minus, nan = (copy.deepcopy(stored) for _ in range(3))
    for values, number in ((zero, 0.0), (minus, -0.0), (nan, math.nan)):
        step_of(values, "packed", 2)["loss"] = number
    assert same_loss.first_difference(zero, minus).endswith("loss is -0.0, was 0.0")
    assert same_loss.first_difference(nan, zero).endswith("loss is 0.0, was nan")
    assert same_loss.first_difference(nan, copy.deepcopy(nan)) == ""


def test_weights_alone_are_a_difference(stored: Tree) -> None:
    changed = copy.deepcopy(stored)
    changed["recipes"]["grad_cache"]["weights"] = "0" * 64
    assert same_loss.first_difference(stored, changed).startswith("grad_cache, the losses are the same, the weights")


def test_a_difference_is_confirmed_on_this_machine(
    stored: Tree, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other bits on another machine are no difference of the code; other bits than the commit's here are."""
    here = copy.deepcopy(stored)
    here["environment"] |= {"torch": "99.0"}
    step_of(here, "packed", 1)["loss"] = 1.0
    asked: list[str] = []
    monkeypatch.setattr(same_loss, "values_of_tree", lambda tree, label="": here)
    monkeypatch.setattr(same_loss, "commit_hash", lambda name: name)
    monkeypatch.setattr(same_loss, "values_of_commit", lambda commit: asked.append(commit) or copy.deepcopy(here))
    assert same_loss.main([]) == 0
    assert asked == [stored["commit"]] and "torch" in capsys.readouterr().out
    monkeypatch.setattr(same_loss, "values_of_commit", lambda commit: copy.deepcopy(stored))
    assert same_loss.main([]) == 1
    assert "packed, stage 0 step 1: loss is 1.0" in capsys.readouterr().out


def test_an_unknown_commit_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert same_loss.main(["--base", "no-such-commit"]) == 2
    assert "no commit 'no-such-commit'" in capsys.readouterr().err
