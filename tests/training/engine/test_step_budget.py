"""A budget becomes a number of steps, once, and a resumed run keeps it."""

import json
from itertools import accumulate
from pathlib import Path

import pytest

from gemma4vec.recipe.schema import Budget, Optimizer, Stage, source_of
from gemma4vec.training.engine import step_budget as budget_module
from gemma4vec.training.engine.step_budget import StepBudget, known_steps, step_budget


def stage(warmup: int = 5, **budget: float) -> Stage:
    return Stage(
        data=(source_of(name="a", path="a.jsonl"),),
        budget=Budget(**budget),  # type: ignore[arg-type]
        optimizer=Optimizer(warmup_steps=warmup),
    )


def watch(found: StepBudget, seconds: list[float], tokens: list[int]) -> list[bool]:
    """What each step said; `tokens` are those of each step."""
    total = accumulate(tokens)
    return [found.seen(step, s, t) for step, (s, t) in enumerate(zip(seconds, total, strict=True))]


def test_steps_and_rows_are_known_at_once(tmp_path: Path) -> None:
    assert step_budget(stage(steps=12), 32, tmp_path, None).total == 12
    assert step_budget(stage(rows=1000), 32, tmp_path, None).total == 31
    assert step_budget(stage(rows=1), 32, tmp_path, None).total == 1
    found = step_budget(stage(steps=12), 32, tmp_path, None)
    assert not any(watch(found, [1.0] * 20, [10] * 20)) and not found.file.exists()
    assert found.watched == 0


@pytest.mark.parametrize(("warmup", "watched"), [(0, 3), (5, 5), (100, 8)])
def test_it_watches_between_three_and_eight_steps(tmp_path: Path, warmup: int, watched: int) -> None:
    found = step_budget(stage(warmup, minutes=1), 32, tmp_path, None)
    assert found.total is None and found.watched == watched
    assert watch(found, [2.0] * watched, [10] * watched) == [False] * (watched - 1) + [True]


def test_a_step_that_made_a_kernel_does_not_end_the_training_early(tmp_path: Path) -> None:
    found = step_budget(stage(minutes=1), 32, tmp_path, None)
    watch(found, [40.0, 1.0, 1.0, 30.0, 1.0], [10] * 5)  # the fourth met a new shape
    assert found.total == 1 + 40  # it counts as three of the others: 60 s at 1.5 s a step


def test_minutes_are_divided_by_the_mean_step_after_the_first(tmp_path: Path) -> None:
    found = step_budget(stage(minutes=1), 32, tmp_path, None)
    watch(found, [40.0, 1.0, 2.0, 1.0, 2.0], [10] * 5)  # the first step compiles
    assert found.total == 1 + 40  # 60 s at 1.5 s a step
    assert json.loads((tmp_path / "budget.json").read_text()) == {"steps": 41, "watched": 5}


def test_a_busy_machine_goes_on_to_the_least_steps(tmp_path: Path) -> None:
    found = step_budget(stage(minutes=1, least_steps=50), 32, tmp_path, None)
    watch(found, [40.0, 4.0, 4.0, 4.0, 4.0], [10] * 5)
    assert (found.affordable, found.total) == (16, 50)
    assert json.loads((tmp_path / "budget.json").read_text()) == {"steps": 50, "watched": 5}
    assert found.pace() == (
        "1 minutes give 16 steps at 4.0 s a step; 50 are made (budget.least_steps), in about 3 minutes"
    )


def test_an_idle_machine_keeps_to_its_minutes(tmp_path: Path) -> None:
    found = step_budget(stage(minutes=1, least_steps=50), 32, tmp_path, None)
    watch(found, [40.0, 1.0, 1.0, 1.0, 1.0], [10] * 5)
    assert (found.affordable, found.total) == (61, 61)
    assert found.pace() == "1 minutes give 61 steps at 1.0 s a step"


@pytest.mark.parametrize(("load", "busy"), [(0.4, False), (9.7, True)])
def test_few_steps_are_said_with_a_neighbour_if_there_is_one(
    load: float, busy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget_module.os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(budget_module.os, "cpu_count", lambda: 2)
    found = step_budget(stage(minutes=1), 32, tmp_path, None)
    assert found.pace() is None
    watch(found, [40.0, 4.0, 4.0, 4.0, 4.0], [10] * 5)
    said = found.pace() or ""
    assert said.startswith("1 minutes give 16 steps at 4.0 s a step, few to learn from")
    assert said.endswith("; budget.least_steps=30 goes on to 30")
    assert ("load 9.7 on 2 cores" in said) is busy


def test_nothing_is_said_of_other_budgets_and_of_resumed_runs(tmp_path: Path) -> None:
    tokens = step_budget(stage(tokens=10_000), 32, tmp_path, None)
    watch(tokens, [1.0] * 5, [100] * 5)
    assert tokens.total == 100 and tokens.pace() is None
    assert step_budget(stage(minutes=1), 32, tmp_path, {"steps": 16, "watched": 5}).pace() is None


@pytest.mark.parametrize("other", ["steps", "rows", "tokens"])
def test_least_steps_belong_to_minutes(other: str) -> None:
    with pytest.raises(ValueError, match=f"least_steps belongs to a budget in minutes; this one is in {other}"):
        Budget.model_validate({other: 100, "least_steps": 50})


def test_tokens_are_divided_by_the_mean_of_all_steps(tmp_path: Path) -> None:
    found = step_budget(stage(tokens=10_000), 32, tmp_path, None)
    watch(found, [1.0] * 5, [80, 120, 100, 90, 110])
    assert found.total == 100


def test_tokens_of_a_run_that_was_resumed_early_count_from_its_start(tmp_path: Path) -> None:
    tokens = [80, 120, 100, 90, 110]
    found = step_budget(stage(tokens=10_000), 32, tmp_path, None)
    for step in (3, 4):  # the first three were in the process before
        found.seen(step, 1.0, sum(tokens[: step + 1]))
    assert found.total == 100


@pytest.mark.parametrize("budget", [{"minutes": 0.001}, {"tokens": 5}])
def test_a_budget_smaller_than_what_was_watched_ends_there(tmp_path: Path, budget: dict) -> None:
    found = step_budget(stage(**budget), 32, tmp_path, None)
    watch(found, [2.0] * 5, [100] * 5)
    assert found.total == 5


def test_the_number_is_written_once_and_never_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    real = budget_module.write_json
    monkeypatch.setattr(budget_module, "write_json", lambda *a: (written.append(a), real(*a)))
    found = step_budget(stage(minutes=1), 32, tmp_path, None)
    told = watch(found, [1.0] * 5 + [100.0] * 15, [10] * 20)
    assert told.count(True) == 1 and len(written) == 1 and found.total == 61


def test_a_resumed_run_uses_the_known_number(tmp_path: Path) -> None:
    known = {"steps": 77, "watched": 5}
    for budget in ({"minutes": 1}, {"tokens": 100}):
        found = step_budget(stage(**budget), 32, tmp_path, known)
        assert (found.total, found.watched) == (77, 5)
        assert not found.seen(0, 99.0, 5) and found.total == 77
    assert step_budget(stage(steps=12), 32, tmp_path, None).total == 12


@pytest.mark.parametrize(
    ("budget", "steps"), [({"steps": 12}, 12), ({"rows": 1000}, 31), ({"minutes": 1}, None), ({"tokens": 10_000}, None)]
)
def test_steps_are_known_of_a_budget_in_steps_or_rows(budget: dict[str, int], steps: int | None) -> None:
    assert known_steps(Budget.model_validate(budget), 32) == steps
