"""Weights that are kept on the way, evaluated afterwards: they are those that training had then."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file
from tiny_model import write_tiny
from tiny_run import RECIPE, make_stage, write_rows_file

from gemma4vec.cli.main import execute
from gemma4vec.data.suites.retrieval import RetrievalSuite, write_suite
from gemma4vec.files import home
from gemma4vec.ledger.ledger import open_ledger
from gemma4vec.ledger.overview import all_runs
from gemma4vec.ledger.records import find_enclosing_run
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.machine.device import DeviceChoice
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.recipe.load import load_recipe
from gemma4vec.recipe.schema import Evaluation
from gemma4vec.report.run_page import write_report
from gemma4vec.text.prompts import Document
from gemma4vec.training.loop import train_stage
from gemma4vec.training.monitoring import weight_snapshots as kept_module
from gemma4vec.training.monitoring.weight_snapshots import checkpoint_models, kept_checkpoints, snapshot_due
from gemma4vec.training.run import recipe_of, start_run, train_run


def test_when_weights_are_kept() -> None:
    every, shares = Evaluation(snapshot_every_steps=3), Evaluation(snapshot_at_shares=(0.5, 1.0))
    assert [step for step in range(1, 9) if snapshot_due(every, step, 8)] == [3, 6]
    assert [step for step in range(1, 9) if snapshot_due(shares, step, 8)] == [4, 8]
    assert not snapshot_due(shares, 4, None) and not snapshot_due(Evaluation(), 4, 8)


def test_a_kept_checkpoint_is_the_model_as_it_was_then(
    log_lines: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = write_tiny(tmp_path / "base", "llama", layers=2)
    seen: list[np.ndarray] = []

    def look() -> tuple[float, dict[str, object]]:
        seen.append(Embedder(stage.built, name="m", fingerprint="f", max_tokens=48).encode_query(["read the tree"]))
        return 0.0, {"suite": "s"}

    evaluation = {"snapshot_every_steps": 2, "every_steps": 2}
    stage = make_stage(base, tmp_path, evaluate=look, evaluation=evaluation)
    train_stage(stage, 0)
    recipe_text = (
        f"name: t\nmodel: {{base: {base}, dtype: fp32, max_tokens: 48, lora: {{rank: 4}}}}\n"
        "stages:\n- {name: contrast, data: [{name: rows, path: rows.jsonl}], budget: {steps: 4}}\n"
    )
    (tmp_path / "recipe.yaml").write_text(recipe_text)
    recipe = load_recipe(tmp_path / "recipe.yaml", [])
    kept = kept_checkpoints(stage.run, recipe)
    assert [(one.stage, one.step) for one in kept] == [(0, 2), (0, 4)]
    prints = set()
    monkeypatch.setattr(kept_module, "choose_device", lambda: DeviceChoice("cpu", "Example is too old"))
    for then, (one, embedder) in zip(seen, checkpoint_models(stage.run, recipe, kept), strict=True):
        assert embedder.name == f"checkpoint-0-{one.step:08d}"
        np.testing.assert_allclose(embedder.encode_query(["read the tree"]), then, atol=2e-6)
        prints.add(embedder.fingerprint)
    assert len(prints) == 2 and log_lines.count("device: cpu (Example is too old)") == 1


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that kept three checkpoints."""
    folder = tmp_path_factory.mktemp("kept")
    base = write_tiny(folder / "base", "llama", layers=2)
    text = RECIPE.format(base=base, rows=write_rows_file(folder / "rows.jsonl"))
    (folder / "recipe.yaml").write_text(text)
    run = start_run(
        load_recipe(folder / "recipe.yaml", ["stages.0.evaluation.snapshot_at_shares=[0.34,0.67,1.0]"]), folder
    )
    train_run(run)
    return run.path


def suite(folder: Path, role: str) -> Path:
    things = ["file", "tree", "graph", "list", "path", "node"]
    made = RetrievalSuite(
        f"words-{role}",
        [f"d{i}" for i in range(6)],
        [Document(f"def {thing}_read") for thing in things],
        [f"q{i}" for i in range(6)],
        [f"read the {thing}" for thing in things],
        {f"q{i}": {f"d{i}": 1} for i in range(6)},
        role=role,  # type: ignore[arg-type]
    )
    write_suite(folder / f"words-{role}", made)
    return folder / f"words-{role}"


def test_the_command_evaluates_all_of_them_and_the_page_shows_the_curve(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dev = suite(tmp_path, "dev")
    assert execute(["eval", str(trained), "--checkpoints", "--suite", str(dev), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [row["step"] for row in printed["checkpoints"]] == [2, 4, 6]
    scores = [row["ndcg@10"] for row in printed["checkpoints"]]
    assert printed["best"]["score"] == pytest.approx(max(scores))
    assert "Choosing it on these queries flatters it by about" in printed["best"]["sentence"]
    result = trained / "evals" / "checkpoint-0-00000004" / "words-dev" / "metrics.json"
    assert json.loads(result.read_text())["mean"]["ndcg@10"] == pytest.approx(scores[1])
    assert json.loads(result.read_text())["settings"]["opened"]["spec"] == str(dev)
    assert find_enclosing_run(result.parent) is not None
    # A checkpoint is not the run's result, but a model that somebody looked at.
    with open_ledger(home()) as ledger:
        assert all(not run["scores"] for run in all_runs(ledger))
        assert ledger.value("SELECT count(DISTINCT model_fingerprint) FROM looks") == 3
    page = write_report(trained, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Checkpoints on words-dev" in page and "Best of 3 checkpoints" in page
    assert execute(["eval", str(trained), "--checkpoints", "--suite", str(dev)]) == 0
    assert "95% interval" in capsys.readouterr().out


def test_what_a_task_trains_beside_the_model_is_no_part_of_a_kept_model(tmp_path: Path) -> None:
    base = write_tiny(tmp_path / "base", "llama", layers=2)
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(base=base, rows=write_rows_file(tmp_path / "rows.jsonl")))
    learned = "stages.0.task.learn_temperature={minimum: 0.01, maximum: 0.5}"
    changes = [learned, "stages.0.evaluation.snapshot_every_steps=6"]
    run = start_run(load_recipe(tmp_path / "recipe.yaml", changes), tmp_path)
    train_run(run)
    kept = kept_checkpoints(run, recipe_of(run))
    (embedder,) = [embedder for _, embedder in checkpoint_models(run, recipe_of(run), kept)]
    assert "objective.temperature" in load_file(kept[0].file)
    assert embedder.encode_query(["read the tree"]).shape == (1, embedder.dimension)


def test_what_is_refused(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    final, dev = suite(tmp_path, "final"), suite(tmp_path, "dev")
    assert execute(["eval", str(trained), "--checkpoints", "--suite", str(final)]) == 2
    assert "must not guide choices; use a dev suite, or state a reason" in capsys.readouterr().err
    assert execute(["eval", "bm25", "--checkpoints", "--suite", str(dev)]) == 2
    assert execute(["eval", str(trained), "--checkpoints", "--suite", str(dev), "--dtype", "fp32"]) == 2
    bare = RunFolder.create(tmp_path / "bare", "bare", RunFolder(trained).recipe_text)
    assert not kept_checkpoints(bare, recipe_of(bare))
    assert execute(["eval", str(bare.path), "--checkpoints", "--suite", str(dev)]) == 2
    assert "snapshot_at_shares" in capsys.readouterr().err
