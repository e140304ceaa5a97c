"""`gemma4vec pipeline`: what it refuses in one line, and what a dry run says."""

import json
from pathlib import Path

import pytest
import yaml
from tiny_plan import STEPS, write_plan, write_plan_place

from gemma4vec.cli.main import execute
from gemma4vec.files import home
from gemma4vec.pipeline.plan.jobs import make_outline
from gemma4vec.pipeline.plan.plan_state import PlanFolder, Record
from gemma4vec.pipeline.plan.work import MAKERS
from gemma4vec.recipe.find import find_plan, shipped_plans
from gemma4vec.recipe.plans.plan import load_plan


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_plan_place(tmp_path_factory.mktemp("command"))


def line_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert execute(["pipeline", *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    return err.strip()


def test_bad_usage_is_one_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(write_plan(place))
    assert line_of([file, "--dry-run", "--resume"], capsys).startswith("error: --dry-run runs nothing")
    assert line_of(["nowhere"], capsys).startswith("error: no plan 'nowhere': neither a file nor one that comes with")
    missing = write_plan(place, suites={"dev": [str(place / "suites" / "none")]})
    assert line_of([str(missing)], capsys) == f"error: dev: no suite folder {place / 'suites' / 'none'}"
    assert not home().exists()


def test_a_plan_that_has_begun_asks_for_resume(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_plan(place)
    outline = make_outline(load_plan(file), place)
    folder = PlanFolder(home() / "plans" / "tiny")
    folder.store(outline)
    folder.write(Record("first", "first", "train", outline.jobs["first"].definition(), status="done", dev=0.5))
    assert line_of([str(file)], capsys) == (
        f"error: the plan has begun in {folder.path} (1 of 5 models made); go on with: gemma4vec pipeline {file} "
        "--resume, or use another --out"
    )
    changed = write_plan(place, STEPS | {"first": {"train": "pairs", "set": {"seed": 3}}})
    assert line_of([str(changed)], capsys).startswith("error: the plan has begun")


def test_a_dry_run_estimates_every_step_and_writes_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(write_plan(place, budget={"minutes": 8}))
    assert execute(["pipeline", file, "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = {row["key"]: row for row in found["jobs"]}
    assert list(rows) == ["first", "mixed/a", "mixed/b", "soup", "soup/greedy"]
    assert [rows[key]["minutes"] for key in rows] == pytest.approx([2.0, 3.0, 3.0, None, None])  # shares 1, 1.5, 1.5
    assert rows["first"]["trainable"] > 0 and rows["soup"]["trainable"] == 0
    assert rows["mixed/a"]["parameters"] == rows["soup"]["parameters"] and rows["soup"]["from"] == [
        "mixed/a",
        "mixed/b",
    ]
    assert found["disk_gb"] == pytest.approx(sum(row["disk_gb"] for row in rows.values()))
    assert found["peak_memory_gb"] == max(row["peak_memory_gb"] for row in rows.values())
    assert found["results"] == ["soup", "soup/greedy"]
    assert not (home() / "plans").exists()
    assert execute(["pipeline", file, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "8 minutes in all" in shown and "mixed/b" in shown and len(shown.splitlines()) < 40


def test_a_teacher_that_an_earlier_step_makes_needs_no_model_yet(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the step of embeddinggemma/plan that trains for four bits, whose teacher is the model that it starts from."""
    matched = {"stages.0.task.terms": [{"kind": "nce"}, {"kind": "matching", "teacher": "start", "form": "direct"}]}
    steps = {"first": {"train": "pairs"}, "second": {"train": "pairs", "start": "first", "set": matched}}
    assert execute(["pipeline", str(write_plan(place, steps)), "--dry-run", "--json"]) == 0
    second = json.loads(capsys.readouterr().out)["jobs"][1]
    assert (second["key"], second["from"]) == ("second", ["first"]) and second["minutes"] > 0
    steps = {"first": {"train": "pairs", "set": matched}}  # nothing is before it
    said = line_of([str(write_plan(place, steps)), "--dry-run"], capsys)
    assert "steps.first: stages.0.task.terms.1.teacher: start is the model of model.start, which is not given" in said


@pytest.mark.parametrize("name", list(shipped_plans()))
def test_the_recipes_of_a_shipped_plan_exist_and_agree(name: str) -> None:
    file = find_plan(name)
    variable = next(name for name in yaml.safe_load(file.read_text())["variables"])
    outline = make_outline(load_plan(file, [f"variables.{variable}=/suites"]), file.parent)
    trained = [job for job in outline.jobs.values() if job.trains]
    assert trained and all(job.file is not None and job.file.parent == file.parent for job in trained)
    assert sum(job.share for job in trained) > 0 and outline.results


def test_a_kind_of_step_without_code_is_refused_before_anything_runs(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MAKERS, "soup", ("gemma4vec.pipeline.plan.no_such_step", "make"))
    said = line_of([str(write_plan(place)), "--dry-run"], capsys)
    assert said == "error: steps.soup: this installation of gemma4vec cannot do a soup step"
