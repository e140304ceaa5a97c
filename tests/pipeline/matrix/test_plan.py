"""From a matrix file to its cells: what is refused, what comes next, and that every recipe sees the same rows."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_matrix import write_matrix, write_place

from gemma4vec.errors import InputError
from gemma4vec.files import sha256_text
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.pipeline.matrix.plan import (
    Plan,
    choose_cell,
    list_expected_cells,
    list_top_variants,
    make_plan,
    next_job,
)
from gemma4vec.pipeline.matrix.state import Cell, Record
from gemma4vec.recipe.plans.matrix import load_matrix
from gemma4vec.recipe.schema import Recipe
from gemma4vec.training.engine.checkpoint import Progress
from gemma4vec.training.prepare_run import prepare_run
from gemma4vec.training.run import Trainer


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_place(tmp_path_factory.mktemp("plan"))


def plan_of(place: Path, **changes: Any) -> Plan:
    file = write_matrix(place, "plan", **changes)
    return make_plan(load_matrix(file, [f"variables.suites={place / 'suites'}"]), place)


def walk(plan: Plan, scores: dict[tuple[str, float | None], float | None]) -> list[tuple[str, float | None, int, bool]]:
    """Do job after job, each with the dev score given (None: it fails); the order in which they came."""
    records: dict[str, Record] = {}
    done = []
    while job := next_job(plan, records):
        cell = job.cell
        done.append((cell.variant, cell.rate, cell.seed, job.final))
        score = scores[cell.variant, cell.rate]
        status = "failed" if score is None else "done" if job.final else "trained"
        records[cell.key] = Record(cell.variant, cell.rate, cell.seed, "run", status, dev=score)  # type: ignore[arg-type]
        assert len(done) < 50
    return done


def test_the_order_of_the_cells(place: Path) -> None:
    plan = plan_of(place, recipes=["last", "mean"], seeds=[3, 4], top={"count": 1, "seeds": [3, 5]})
    scores = {("mean", 0.001): 0.2, ("mean", 0.01): 0.3, ("last", 0.001): 0.5, ("last", 0.01): 0.4}
    assert walk(plan, scores) == [
        ("mean", 0.001, 3, False),  # the control first
        ("mean", 0.01, 3, False),
        ("mean", 0.01, 3, True),  # the better rate, evaluated
        ("last", 0.001, 3, False),
        ("last", 0.01, 3, False),
        ("last", 0.001, 3, True),
        ("mean", 0.01, 4, True),
        ("last", 0.001, 4, True),
        ("mean", 0.01, 5, True),  # control and top
        ("last", 0.001, 5, True),
    ]


def test_a_recipe_that_fails_has_no_further_cells(place: Path) -> None:
    plan = plan_of(place, top={"count": 2, "seeds": [0, 1]})
    scores = {("mean", 0.001): 0.2, ("mean", 0.01): None, ("last", 0.001): None, ("last", 0.01): None}
    assert [cell for cell in walk(plan, scores) if cell[3]] == [("mean", 0.001, 0, True), ("mean", 0.001, 1, True)]


def test_the_dry_run_lists_what_the_run_does(place: Path) -> None:
    plan = plan_of(place, seeds=[0, 1], top={"count": 1, "seeds": [0, 1, 2]})
    before = list_expected_cells(plan, {})
    scores = {("mean", 0.001): 0.2, ("mean", 0.01): 0.3, ("last", 0.001): 0.5, ("last", 0.01): 0.4}
    cells = {(variant, rate, seed) for variant, rate, seed, _ in walk(plan, scores)}
    assert len(before) == len(cells) == 8


def test_with_one_rate_a_cell_is_evaluated_at_once(place: Path) -> None:
    plan = plan_of(place, learning_rates=None)
    assert walk(plan, {("mean", None): 0.1, ("last", None): 0.2}) == [("mean", None, 0, True), ("last", None, 0, True)]
    assert plan.recipe(Cell("mean", None, 0)).stages[0].optimizer.learning_rate == 0.01  # the recipe's own


def test_stopped_cells_are_not_chosen(place: Path) -> None:
    plan = plan_of(place)
    low, high = plan.grid("mean")
    records = {
        low.key: Record("mean", 0.001, 0, "run", "trained", dev=0.1),
        high.key: Record("mean", 0.01, 0, "run", "stopped", dev=0.9),
    }
    assert choose_cell(plan, "mean", records) == low
    plan = plan_of(place, top={"count": 1, "seeds": [1]})
    assert list_top_variants(plan, records) == ["mean"]


def test_axes_and_bases_are_crossed(place: Path) -> None:
    axes = {
        "rank": {"values": {2: ["model.lora.rank=2"], 4: ["model.lora.rank=4"]}},
        "pool": {"values": {"all": [], "text": ["model.readout.pool_prompt=false"]}, "recipes": ["mean"]},
    }
    plan = plan_of(place, axes=axes, bases=[None, "/models/other"], control="mean rank=2 pool=all @own base")
    assert len(plan.variants) == 2 * (2 * 2 + 2)
    recipe = plan.recipe(plan.grid("mean rank=4 pool=text @other")[0])
    assert recipe.model.base == "/models/other" and recipe.model.lora is not None and recipe.model.lora.rank == 4
    assert recipe.model.readout.pool_prompt is False
    assert "last rank=2 @other" in plan.variants
    keys = {cell.key for name in plan.variants for cell in plan.grid(name)}
    assert len(keys) == 24


def test_a_control_on_the_same_base(place: Path) -> None:
    plan = plan_of(place, bases=[None, "/models/other"])
    assert plan.controls["last @other"] == "mean @other" and plan.controls["last @own base"] == "mean @own base"


def test_changes_for_every_contrast_stage(place: Path) -> None:
    recipe = yaml.safe_load((place / "mean.yaml").read_text())
    recipe["stages"] = [recipe["stages"][0] | {"name": "one"}, recipe["stages"][0] | {"name": "two"}]
    (place / "two.yaml").write_text(yaml.safe_dump(recipe))
    plan = plan_of(place, recipes=["two"], control="two", overrides=["stages.*.batch.rows=4"])
    stages = plan.recipe(Cell("two", 0.5, 0)).stages
    assert [(stage.batch.rows, stage.optimizer.learning_rate, stage.budget.rows) for stage in stages] == [
        (4, 0.5, 32),
        (4, 0.5, 32),
    ]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"recipies": ["mean"]}, "unknown key 'recipies'; did you mean 'recipes'?"),
        ({"budget": {"minutes": 5}}, "unknown key 'budget.minutes'"),
        ({"control": "other"}, "control: 'other' is unknown; use one of mean, last"),
        ({"recipes": ["mean", "absent"]}, "recipes: no recipe 'absent': neither a file nor one that comes"),
        ({"recipes": ["mean", "mean"]}, "two are called 'mean'"),
        ({"overrides": ["stages.*.batch.rowz=4"]}, "unknown key 'stages.0.batch.rowz'; did you mean 'rows'?"),
        ({"dev": [{"suite": "${suits}/tune"}]}, "${suits} is none of its variables (suites)"),
        ({"stop": {"after_share": 0.5}}, "stop needs smallest_effect"),
        ({"seeds": [1, 1]}, "seeds: a value is given twice"),
        ({"axes": {"a": {"values": {"b": []}, "recipes": ["men"]}}}, "axes.a.recipes: 'men' is none of mean, last"),
        ({"bases": [None, "x"], "control": "mean @y"}, "control: 'mean @y' is unknown; use one of"),
        ({"axes": {"a": {"values": {"b": [], "c": []}}}}, "control: 'mean' has 2 variants"),
        (
            {"recipes": ["mean", {"recipe": "last", "overrides": ["stages.0.batch.rows=4"]}]},
            "recipe last has batch.rows 4 and the control mean 8: not the same rows",
        ),
        (
            {"recipes": ["mean", {"recipe": "last", "overrides": ["stages.0.data.0.max_rows=9"]}]},
            "recipe last has data ",
        ),
    ],
)
def test_bad_files_are_one_line(place: Path, changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError) as error:
        plan_of(place, **changes)
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_other_rows_only_where_it_is_said(place: Path) -> None:
    entry = {"recipe": "last", "overrides": ["stages.0.batch.rows=4"]}
    plan = plan_of(place, recipes=["mean", entry], equal_rows=False)
    assert plan.recipe(plan.grid("last")[0]).stages[0].batch.rows == 4


def test_every_recipe_draws_the_same_texts(place: Path, tmp_path: Path) -> None:
    """The batches that each cell's own task draws, text by text, whatever the recipe and the rate."""
    entries = ["mean", "last", {"recipe": "mean", "name": "narrow", "overrides": ["stages.0.layout.grouping=separate"]}]
    recipe = yaml.safe_load((place / "mean.yaml").read_text())
    adapt = recipe["stages"][0] | {"name": "adapt", "task": {"kind": "masked_next_token"}, "budget": {"steps": 2}}
    (place / "adapted.yaml").write_text(yaml.safe_dump(recipe | {"stages": [adapt, *recipe["stages"]]}))
    plan = plan_of(place, recipes=[*entries, "adapted"], overrides=["stages.*.batch.group_rows=2"])
    adapted = plan.recipe(plan.grid("adapted")[0])
    assert [stage.budget.model_dump(exclude_none=True) for stage in adapted.stages] == [{"steps": 2}, {"rows": 32}]
    found = {seed: set() for seed in (0, 1)}  # type: dict[int, set[str]]
    for variant in plan.variants:
        for rate in plan.rates:
            for seed in found:
                found[seed].add(_drawn(plan.recipe(Cell(variant, rate, seed)), tmp_path / variant))
    assert len(found[0]) == len(found[1]) == 1 and found[0] != found[1]


def _drawn(recipe: Recipe, folder: Path) -> str:
    """Hash of all texts that a training of `recipe` is given, in their order."""
    from gemma4vec.training import run as run_module

    texts: list[str] = []

    def watch(stage: Any, seed: int) -> Progress:
        steps = round(stage.settings.budget.rows / stage.settings.batch.rows)
        for batch, _ in zip(stage.task.batches(0), range(steps), strict=False):
            texts.extend([*batch.texts.queries, *(document.text for document in batch.texts.positives)])
        return Progress()

    run = run_module.start_run(recipe, folder)
    trainer = Trainer(prepare_run(RunFolder(run.path), recipe))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "train_stage", watch)
        number = len(recipe.stages) - 1
        trainer.train(number)
    assert len(texts) == 64
    return sha256_text(*texts)
