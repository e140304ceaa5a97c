"""Training tells the ledger of itself: when it starts, how it ends, and every look at a suite on the way."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_model import write_tiny
from tiny_run import RECIPE, write_rows_file

from gemma4vec.cli.main import execute
from gemma4vec.data.suites.retrieval import RetrievalSuite, write_suite
from gemma4vec.errors import InputError, WorkError
from gemma4vec.files import home
from gemma4vec.ledger.index import INDEX
from gemma4vec.ledger.ledger import open_ledger
from gemma4vec.ledger.overview import find_recorded_run
from gemma4vec.ledger.rebuild import rebuild
from gemma4vec.ledger.recording import record_run
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.recipe.load import load_recipe
from gemma4vec.text.prompts import Document
from gemma4vec.training.run import start_run, train_run


def write_small_suite(folder: Path) -> Path:
    names = ["read", "write", "sort"]
    documents = [Document(f"def file_{name}") for name in names]
    qrels = {name: {name: 1} for name in names}
    write_suite(folder, RetrievalSuite("small", names, documents, names, names, qrels))
    return folder


def test_a_training_is_in_the_ledger(tmp_path: Path) -> None:
    base = write_tiny(tmp_path / "base", "llama", layers=1)
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE.format(base=base, rows=write_rows_file(tmp_path / "rows.jsonl")))
    suite = write_small_suite(tmp_path / "small")
    asked = ["hypothesis=MAP +1 on small", "stages.0.evaluation.every_steps=3", f"stages.0.evaluation.suite={suite}"]
    recipe = load_recipe(file, [*asked, "stages.0.budget.steps=6"])
    run = start_run(recipe)
    train_run(run)
    with open_ledger(home()) as ledger:
        states = [row["status"] for row in ledger.rows("SELECT status FROM run_states ORDER BY seq")]
        found = find_recorded_run(ledger, run.run_id)
        looks = ledger.rows("SELECT * FROM looks WHERE metric = 'ndcg@10'")
    assert states == ["started", "finished"]
    assert found["hypothesis"] == "MAP +1 on small" and found["cost"]["tokens"] > 0
    assert found["data"]["0-contrast"]["rows"]["content_hash"] and found["results"]["last_evaluation"]["step"] == 6
    seen = [(look["suite"], look["model"], look["run_id"]) for look in looks]
    assert seen == [("small", "checkpoint", run.run_id)] * 2
    assert {look["recipe_id"] for look in looks} == {run.manifest["recipe_id"]}

    child = start_run(load_recipe(file, [f"model.base={run.model}"]))
    assert child.manifest["parents"] == [run.run_id]
    (run.path / "model" / "config.json").unlink()
    with pytest.raises(InputError):
        train_run(child)
    with open_ledger(home()) as ledger:
        assert find_recorded_run(ledger, child.run_id)["status"] == "failed"
        before = [json.loads(row["body"]) for row in ledger.rows("SELECT body FROM records ORDER BY id")]
    (home() / INDEX).unlink()
    assert rebuild(home()).from_folders == 0
    with open_ledger(home()) as ledger:
        assert [json.loads(row["body"]) for row in ledger.rows("SELECT body FROM records ORDER BY id")] == before


class RunsTwice:
    """Cuts a training off at two of its steps, once each, and keeps what the ledger and the manifest say meanwhile."""

    def __init__(self) -> None:
        self.write = RunFolder.event
        self.ends = {2: KeyboardInterrupt(), 4: WorkError("the disk is full")}
        self.seen: list[tuple[int, str, str]] = []

    def event(self, run: RunFolder, name: str, **fields: Any) -> None:
        self.write(run, name, **fields)
        if name == "step":
            with open_ledger(home()) as ledger:
                recorded = find_recorded_run(ledger, run.run_id)["status"]
            self.seen.append((fields["step"], recorded, run.manifest["status"]))
            if fields["step"] in self.ends:
                raise self.ends.pop(fields["step"])


def test_a_run_that_goes_on_has_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = write_tiny(tmp_path / "base", "llama", layers=1)
    file, rows = tmp_path / "recipe.yaml", write_rows_file(tmp_path / "rows.jsonl")
    file.write_text(RECIPE.format(base=base, rows=rows))
    run, kept, twice = start_run(load_recipe(file)), rows.read_bytes(), RunsTwice()
    monkeypatch.setattr(RunFolder, "event", lambda run, name, **fields: twice.event(run, name, **fields))
    for error, status in ((KeyboardInterrupt, "interrupted"), (WorkError, "failed")):
        with pytest.raises(error):
            train_run(run)
        assert run.manifest["status"] == status
    rows.write_bytes(kept[: kept.rindex(b"\n", 0, -1) + 1])
    with pytest.raises(InputError, match="the rows of rows"):
        train_run(run)
    assert run.manifest["status"] == "failed"  # it did not go on
    rows.write_bytes(kept)
    train_run(run)
    assert {step for step, _, _ in twice.seen} == {1, 2, 3, 4, 5, 6}
    assert {(recorded, noted) for _, recorded, noted in twice.seen} == {("started", "started")}
    with open_ledger(home()) as ledger:
        states = [row["status"] for row in ledger.rows("SELECT status FROM run_states ORDER BY seq")]
    assert states == ["started", "interrupted", "started", "failed", "started", "finished"]


@contextlib.contextmanager
def held(run: RunFolder) -> Iterator[None]:
    """Another process holds a run's folder."""
    program = (
        "import fcntl, sys; s = open(sys.argv[1], 'w'); fcntl.lockf(s, fcntl.LOCK_EX); print(1, flush=True); input()"
    )
    command = [sys.executable, "-c", program, str(run.path / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline()
        yield
        other.kill()


def test_the_list_says_which_runs_a_process_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [
        RunFolder.create(home(), name, f"name: {name}\n", status=name) for name in ("failed", "started", "finished")
    ]
    for run in runs:
        record_run(run)

    def listed() -> dict[str, str]:
        assert execute(["runs", "--json"]) == 0
        return {one["run_id"]: one["status"] for one in json.loads(capsys.readouterr().out)}

    def shown(run: RunFolder) -> str:
        assert execute(["runs", "show", run.run_id, "--json"]) == 0
        return str(json.loads(capsys.readouterr().out)["status"])

    recorded = {run.run_id: str(run.manifest["status"]) for run in runs}
    assert listed() == recorded
    for run, now in zip(runs, ("running", "running", "finished"), strict=True):
        with held(run):
            assert (listed(), shown(run)) == (recorded | {run.run_id: now}, now)
    assert listed() == recorded


def test_a_run_is_trained_by_one_process_at_a_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = write_tiny(tmp_path / "base", "llama", layers=1)
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE.format(base=base, rows=write_rows_file(tmp_path / "rows.jsonl")))
    run = start_run(load_recipe(file, ["stages.0.budget.steps=1"]))
    with held(run):
        assert execute(["train", "--resume", str(run.path)]) == 2
        assert "is being trained by another process" in capsys.readouterr().err
        assert run.manifest["status"] == "started"  # the other one's work is not called failed
    assert execute(["train", "--resume", str(run.path)]) == 0
