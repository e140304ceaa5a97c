"""Quickstart on a tiny model and made-up code: all that it promises is there, and it goes on where parts are gone."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_code import write_code
from tiny_model import write_tiny

from gemma4vec.cli.main import execute
from gemma4vec.cli.quickstart import _changes
from gemma4vec.evaluation.results.result import load_result
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.pipeline.quickstart import quickstart_recipe
from gemma4vec.training.run import recipe_of

SMALL = [
    "stages.0.budget={steps: 3}",
    "stages.0.layout.compile=false",
    "stages.0.batch.rows=8",
    "model.lora.rank=2",
    "model.dtype=fp32",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base model and a folder of code whose name YAML would misread."""
    root = tmp_path_factory.mktemp("quickstart")
    write_tiny(root / "base", layers=2)
    write_code(root / "my code: #1")
    return root


@pytest.fixture(scope="module")
def finished(place: Path) -> Iterator[dict[str, Any]]:
    """What the command printed, with its run as `folder`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEMMA4VEC_HOME", str(place / "home"))
        patch.setenv("GEMMA4VEC_CACHE", str(place / "cache"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        arguments = ["quickstart", "--json", "--folder", str(place / "my code: #1"), "--base", str(place / "base")]
        for change in SMALL:
            arguments += ["--set", change]
        printed = run_command([*arguments, "--seed", "3", "--queries", "12", "--documents", "30"])
        yield printed | {"folder": Path(printed["run"])}


@pytest.fixture(autouse=True)
def home(place: Path, own_folders: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMMA4VEC_HOME", str(place / "home"))
    monkeypatch.setenv("GEMMA4VEC_CACHE", str(place / "cache"))


def run_command(arguments: list[str]) -> dict[str, Any]:
    """Run a command that prints JSON and nothing else on stdout."""
    import contextlib
    import io

    stdout = io.StringIO()
    with contextlib.redirect_stdout(stdout):
        assert execute(arguments) == 0
    printed: dict[str, Any] = json.loads(stdout.getvalue())
    return printed


def test_it_prints_what_it_found(finished: dict[str, Any], place: Path) -> None:
    keys = {
        "run",
        "suite",
        "queries",
        "documents",
        "test",
        "example",
        "models",
        "sentence",
        "model",
        "training",
        "report",
        "seconds",
    }
    assert keys | {"folder"} == set(finished)
    assert finished["queries"] == 12 and finished["documents"] == 16
    assert len(finished["models"]) == 3 and all(
        {"model", "ndcg@10", "low", "high", "recall@100", "mrr@10", "map"} <= set(row) for row in finished["models"]
    )
    assert all(row["low"] <= row["ndcg@10"] <= row["high"] for row in finished["models"])
    assert finished["sentence"] and finished["training"]["tokens"] > 0 and finished["seconds"] > 0
    assert Path(finished["run"]).parent == place / "home"


def test_the_run_folder_holds_it_all(finished: dict[str, Any], place: Path) -> None:
    run = RunFolder.open(finished["folder"])
    assert "<html" in (run.path / "report.html").read_text(encoding="utf-8")
    for model in ("bm25", "untrained", "trained"):
        folder = run.evaluation(model, finished["suite"])
        assert (folder / "metrics.json").is_file() and (folder / "per_query.parquet").is_file()
        assert load_result(folder).mean["ndcg@10"] >= 0
    recipe = recipe_of(run)
    assert recipe.seed == 3 and recipe.stages[0].data[0].path == str(place / "my code: #1")
    manifest = run.manifest
    assert manifest["status"] == "finished" and manifest["seed"] == 3 and "0-contrast" in manifest["data"]
    assert manifest["suites"][finished["suite"]]["fingerprint"]
    steps = [event["what"] for event in run.events("quickstart_step")]
    assert steps[0] == "base model" and steps[-1] == "report" and "training" in steps
    assert len(run.events("step")) == 3


def test_the_card_has_the_scores(finished: dict[str, Any]) -> None:
    card = (finished["folder"] / "model" / "README.md").read_text(encoding="utf-8")
    scores = card.split("## Scores")[1].split("\n## ")[0]
    for row in finished["models"]:
        assert f"| {row['model']} | {row['ndcg@10']:.4f} | {row['low']:.4f} to {row['high']:.4f} |" in scores
    assert finished["sentence"] in scores and "12 queries over 16 functions" in scores


def test_the_model_can_be_searched_with(finished: dict[str, Any], place: Path) -> None:
    found = run_command(["search", finished["run"], "Sort all the apples of a house", "--json"])
    text = json.dumps(found)
    assert "module" in text and ".py" in text
    assert Embedder.load(finished["folder"], dtype="fp32").dimension == 32


# What is deleted -> what is done again.
PARTS = {
    "report.html": {"evaluating the trained model", "report"},
    "index": {"evaluating the trained model", "report"},
    "evals/trained": {"evaluating the trained model", "report"},
    "model": {"base model", "training", "saving the model", "evaluating the trained model", "report"},
    "model and checkpoints": {"base model", "training", "saving the model", "report"},
    "model, checkpoints and evals": {"evaluating BM25", "evaluating the untrained base", "training", "report"},
}


@pytest.mark.parametrize("parts", PARTS)
def test_it_goes_on_where_parts_are_gone(finished: dict[str, Any], tmp_path: Path, parts: str) -> None:
    run = RunFolder(Path(shutil.copytree(finished["folder"], tmp_path / finished["folder"].name)))
    for part in parts.replace(",", " and").split(" and "):
        target = run.path / part
        target.unlink() if target.is_file() else shutil.rmtree(target)
    if "evals" in parts or parts == "model":
        shutil.rmtree(run.path / "evals" / "trained", ignore_errors=True)
    before = len(run.events("quickstart_step"))
    printed = run_command(["quickstart", "--resume", str(run.path), "--json"])
    done = {event["what"] for event in run.events("quickstart_step")[before:]}
    assert PARTS[parts] <= done and ("training" in done) == ("training" in PARTS[parts])
    assert (run.path / "report.html").is_file() and (run.path / "index" / "test" / "meta.json").is_file()
    assert (run.model / "README.md").read_text(encoding="utf-8").count("## Scores") == 1
    # Checkpoints give the very model back; training again from the start gives it as well.
    assert len(run.events("step")) == (6 if "checkpoints" in parts else 3)
    for row, expected in zip(printed["models"], finished["models"], strict=True):
        assert row["model"] == expected["model"] and row["ndcg@10"] == pytest.approx(expected["ndcg@10"], abs=1e-3)


def test_a_final_suite_is_not_scored_for_an_unfrozen_recipe(
    finished: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(Path(shutil.copytree(finished["folder"], tmp_path / finished["folder"].name)))
    shutil.rmtree(run.path / "evals" / "trained")
    options = run.path / "suite" / "suite.yaml"
    options.write_text(yaml.safe_dump(yaml.safe_load(options.read_text()) | {"role": "final"}), encoding="utf-8")
    assert execute(["quickstart", "--resume", str(run.path)]) == 2
    assert (
        f"is a final suite, for frozen recipes only; first: gemma4vec runs freeze {run.run_id}"
        in (capsys.readouterr().err.strip().splitlines()[-1])
    )
    assert not (run.path / "evals" / "trained").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--folder", "no/such/folder"], "--folder no/such/folder: no such folder"),
        (["--resume", "nothing"], "no run 'nothing' in "),
        (["--resume", "latest", "--minutes", "1"], "--resume continues with the run's own recipe"),
        (["--resume", "latest", "--seed", "1"], "--resume continues with the run's own recipe"),
        (["--resume", "."], "is not a run folder"),
        (["--set", "model.lora.rnak=3"], "unknown key 'model.lora.rnak'; did you mean 'rank'?"),
        (["--set", "stages.0.budget.steps=3"], "found steps and minutes"),
        (["--base", "bundled:gemma-3-27om"], "did you mean bundled:gemma-3-270m?"),
        (["--minutes", "0"], "--minutes"),
    ],
)
def test_bad_usage_is_one_line(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert execute(["quickstart", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    last = captured.err.strip().splitlines()[-1]
    assert last.startswith("error: ") and expected in last


def test_a_folder_without_code_is_one_line(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    arguments = ["--folder", str(tmp_path / "empty"), "--base", str(place / "base"), "--out", str(tmp_path / "out")]
    assert execute(["quickstart", *arguments]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ") and str(tmp_path / "empty") in last
    assert not (tmp_path / "out").exists()  # no run of what cannot be trained


@pytest.mark.parametrize("name", ["a b", "x: y", "x #1", "{a}", "[a", "it's", 'say "hi"', "дом", "&a *b", "2024"])
def test_any_folder_and_base_can_be_named(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    recipe = quickstart_recipe(_changes(1.5, f"./{name}", folder, 4, ["model.lora.rank=2"]))
    assert recipe.stages[0].data[0].path == str(folder) and recipe.model.base == f"./{name}"
    assert recipe.stages[0].budget.minutes == 1.5 and recipe.seed == 4
    assert recipe.model.lora is not None and recipe.model.lora.rank == 2


def test_least_steps_go_into_the_budget() -> None:
    recipe = quickstart_recipe(_changes(1.5, None, None, None, [], least_steps=60))
    assert (recipe.stages[0].budget.minutes, recipe.stages[0].budget.least_steps) == (1.5, 60)
