"""A stop rule is checked when the recipe is read."""

import pytest

from gemma4vec.errors import InputError
from gemma4vec.recipe.load import parse_recipe
from gemma4vec.recipe.stop_rule import StopRule

TEXT = """
name: small
stages:
  - data: [{name: pairs, path: pairs.jsonl}]
    batch: {rows: 4, accumulate: 2}
    budget: {steps: 10}
"""


def read(evaluation: str, budget: str = "{steps: 10}") -> StopRule | None:
    recipe = parse_recipe(TEXT, "r.yaml", [f"stages.0.budget={budget}", f"stages.0.evaluation={evaluation}"])
    return recipe.stages[0].evaluation.stop


def test_looks_are_steps_of_the_budget() -> None:
    rule = read("{stop: {reference: bm25, smallest_effect: 0.01, at_shares: [0.01, 0.5, 0.75]}}")
    assert rule is not None and rule.steps(10) == [1, 5, 8] and rule.grid == (0.01, 0.5, 0.75)
    rule = read("{stop: {reference: r, smallest_effect: -0.01, at_steps: [3, 9]}}")
    assert rule is not None and rule.steps(10) == [3, 9]


@pytest.mark.parametrize(
    ("stop", "said"),
    [
        ("{smallest_effect: 0.01, at_shares: [0.5]}", "stages.0.evaluation.stop.reference: Field required"),
        ("{reference: bm25, at_shares: [0.5]}", "stages.0.evaluation.stop.smallest_effect: Field required"),
        ("{reference: bm25, smallest_effect: 0.01}", "stages.0.evaluation.stop: give the looks beforehand"),
        ("{reference: bm25, smallest_effect: 0, at_shares: [0.5], at_steps: [5]}", "one of the two"),
        ("{reference: bm25, smallest_effect: 0, at_shares: [0.5, 0.2]}", "each look once, in rising order"),
        ("{reference: bm25, smallest_effect: 0, at_steps: [5, 5]}", "at_steps: each look once"),
        ("{reference: bm25, smallest_effect: 0, at_shares: [1.0]}", "stages.0.evaluation.stop.at_shares.0"),
        ("{reference: bm25, smallest_effect: 0, at_shares: [0.96]}", "is not before the last of 10 steps"),
        ("{reference: bm25, smallest_effect: 0, at_steps: [10]}", "is not before the last of 10 steps"),
        ("{reference: bm25, smallest_effect: 1.5, at_steps: [5]}", "stages.0.evaluation.stop.smallest_effect"),
        ("{reference: bm25, smallest_effect: 0, at_steps: [5], metric: loss}", "stages.0.evaluation.stop.metric"),
        ("{reference: latest, smallest_effect: 0, at_steps: [5]}", "another run each time"),
        ("{reference: bm25, smallest_effect: 0, at_steps: [5], reference_at: same_place}", "bm25 is not trained"),
        ("{reference: bm25, smallest_effect: 0, at_step: [5]}", "did you mean 'at_steps'?"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_its_key(stop: str, said: str) -> None:
    with pytest.raises(InputError, match=r"stages\.0") as error:
        read(f"{{stop: {stop}}}")
    assert said in str(error.value)


def test_a_budget_in_rows_has_steps_too() -> None:
    stop = "{{stop: {{reference: bm25, smallest_effect: 0, at_steps: [{}]}}}}"
    assert read(stop.format(9), "{rows: 80}") is not None  # 10 steps of 8 rows
    with pytest.raises(InputError, match="not before the last of 10 steps"):
        read(stop.format(10), "{rows: 80}")
    assert read(stop.format(10), "{minutes: 1}") is not None  # nobody knows yet


@pytest.mark.parametrize(
    ("evaluation", "said"),
    [
        ("{background: true}", "say when"),
        ("{background: true, every_steps: 2, export: best}", "too late for export: best"),
    ],
)
def test_evaluation_beside_needs_something_to_evaluate(evaluation: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read(evaluation)
