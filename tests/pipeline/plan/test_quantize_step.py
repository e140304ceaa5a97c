"""A plan that trains for a grid with its start as the teacher: the start does not exist when the plan is checked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_plan import outline_of, write_plan_place

from gemma4vec.errors import InputError
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.pipeline.plan.check import check_jobs, checkable_recipe
from gemma4vec.pipeline.plan.dry_run import estimate_plan
from gemma4vec.pipeline.plan.jobs import make_outline
from gemma4vec.pipeline.plan.run_plan import run_plan
from gemma4vec.recipe import schema
from gemma4vec.recipe.find import find_plan
from gemma4vec.recipe.plans.plan import load_plan
from gemma4vec.training.terms.teachers import named_teachers

TEACHER = {"kind": "matching", "teacher": "start", "form": "direct"}
STEPS = {
    "first": {"train": "pairs.yaml"},
    "small": {"quantize": {"of": "first", "schemes": ["mixed"], "train": "grid.yaml", "control": True}},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place of tiny models with a recipe for a grid."""
    root = write_plan_place(tmp_path_factory.mktemp("grid"))
    tree = yaml.safe_load((root / "pairs.yaml").read_text())
    tree["model"] = {"dtype": "fp32", "lora": None, "train": "full", "train_embeddings": False}
    tree["stages"][0] |= {"quantize": {"scheme": "mixed"}, "task": {"terms": [{"kind": "nce"}, TEACHER]}}
    (root / "grid.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    return root


def test_the_whole_plan_runs_and_its_training_had_the_teacher(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEMMA4VEC_HOME", str(tmp_path / "home"))
    outline = outline_of(place, STEPS)
    assert estimate_plan(outline, {})["jobs"]
    results = run_plan(outline, tmp_path / "out", command="resume", execute=_execute)
    rows = {row["key"]: row for row in results["steps"]}
    assert {key: row["status"] for key, row in rows.items()} == dict.fromkeys(outline.jobs, "done")
    steps = RunFolder(Path(rows["small/mixed-trained"]["run"])).events("step")
    assert all(step["terms"]["matching"] >= 0 for step in steps)


def _execute(work: Callable[[Any], None], argument: Any, log: Path, look: Callable[[], None]) -> int:
    work(argument)
    look()
    return 0


def test_only_the_term_whose_teacher_is_not_made_is_left_out_of_the_checks(place: Path) -> None:
    outline = outline_of(place, STEPS)
    job = outline.jobs["small/mixed-trained"]
    assert job.recipe is not None
    tasks = [recipe.stages[0].task for recipe in (job.recipe, checkable_recipe(job))]
    kinds = [[term.kind for term in task.terms] for task in tasks if isinstance(task, schema.Contrast)]
    assert kinds == [["nce", "matching"], ["nce"]]
    other = STEPS | {"small": STEPS["small"] | {"set": {"stages.0.task.terms.1.teacher": str(place / "nowhere")}}}
    with pytest.raises(InputError, match=r"steps\.small: no model at .*nowhere"):
        check_jobs(outline_of(place, other), {})


def test_the_shipped_plan_passes_the_checks_before_its_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """What reads data or weights is left out here; the recipes, and what they name, are checked."""
    checked = []

    def named(recipe: schema.Recipe) -> None:
        for stage in recipe.stages:
            if isinstance(stage.task, schema.Contrast):
                checked.append(named_teachers(stage.task, recipe.model.start))

    monkeypatch.setattr("gemma4vec.pipeline.plan.check.check_inputs", named)
    path = find_plan("embeddinggemma/plan")
    check_jobs(make_outline(load_plan(path, ["variables.suites=suites"]), path.parent), {})
    assert len(checked) == 6
