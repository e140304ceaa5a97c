"""Evaluation beside a training: the same results as afterwards, whoever is killed when."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import forked
import pytest
from tiny_model import write_tiny
from tiny_run import RECIPE, rows, write_rows_file

from gemma4vec.cli.main import execute
from gemma4vec.data.suites.retrieval import RetrievalSuite, write_suite
from gemma4vec.errors import InputError
from gemma4vec.evaluation.results.result import load_result
from gemma4vec.files import home
from gemma4vec.ledger.ledger import open_ledger
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.recipe.load import load_recipe
from gemma4vec.recipe.schema import Evaluation
from gemma4vec.report.run_page import write_report
from gemma4vec.training.monitoring import background_eval as beside
from gemma4vec.training.monitoring.background_eval import dev_suite_of, follow, note_dev_suite
from gemma4vec.training.run import recipe_of, start_run, train_run

SOURCE = Path(__file__).resolve().parents[3] / "src"
HOLD = "import sys, time; from pathlib import Path; from gemma4vec.ledger.run_folder import RunFolder\n"
HOLD += "with RunFolder(Path(sys.argv[1])).hold():\n    print('held', flush=True); time.sleep(60)"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("beside")
    base = write_tiny(folder / "base", "llama", layers=2)
    (folder / "recipe.yaml").write_text(RECIPE.format(base=base, rows=write_rows_file(folder / "rows.jsonl")))
    texts = rows()
    suite = RetrievalSuite(
        "words",
        [f"d{i:02d}" for i in range(len(texts))],
        [row.pos[0] for row in texts],
        [f"q{i:02d}" for i in range(len(texts))],
        [row.query for row in texts],
        {f"q{i:02d}": {f"d{i:02d}": 1} for i in range(len(texts))},
        role="dev",
    )
    write_suite(folder / "words", suite)
    return folder


def started(place: Path, out: Path, *more: str) -> RunFolder:
    told = [f"stages.0.evaluation.suite={place / 'words'}", "stages.0.evaluation.max_queries=20", *more]
    return start_run(load_recipe(place / "recipe.yaml", told), out)


def scores(run: RunFolder) -> dict[str, float]:
    found = sorted(run.path.glob("evals/checkpoint-*/*/metrics.json"))
    return {file.parent.parent.name: load_result(file.parent).mean["ndcg@10"] for file in found}


def held(run: RunFolder) -> forked.Popen:
    """A process that holds a run as its trainer does."""
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    process = forked.Popen(
        [sys.executable, "-c", HOLD, str(run.path)], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_training_starts_it_and_its_results_are_those_of_afterwards(
    log_lines: list[str], place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One real child process: everything below is tested without."""
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))
    opened = SimpleNamespace(Popen=forked.Popen, DEVNULL=subprocess.DEVNULL)
    monkeypatch.setattr("gemma4vec.training.monitoring.background_eval.subprocess", opened)
    changes = ["stages.0.evaluation.every_steps=2", "stages.0.evaluation.background=true"]
    run = started(place, tmp_path / "runs", *changes)
    train_run(run)
    log = (run.path / "beside.log").read_text()
    assert not any(line.startswith("warning") for line in log_lines), log
    assert not run.events("evaluation")  # nothing was evaluated inside
    assert [path.name for path in sorted(run.checkpoints.glob("0-contrast/kept/*"))] == [
        f"step-{step:08d}.safetensors" for step in (2, 4, 6)
    ]
    by_child = scores(run)
    assert sorted(by_child) == [f"checkpoint-0-{step:08d}" for step in (2, 4, 6)], log
    with open_ledger(home()) as ledger:
        assert ledger.value("SELECT count(DISTINCT model_fingerprint) FROM looks") == 3
    assert execute(["eval", str(run.path), "--checkpoints", "--no-cache"]) == 0
    assert scores(run) == pytest.approx(by_child, abs=1e-6)
    page = write_report(run.path, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Best of 3 checkpoints" in page


def test_following_gives_each_checkpoint_once_as_it_appears(log_lines: list[str], place: Path, tmp_path: Path) -> None:
    run = started(place, tmp_path, "stages.0.evaluation.snapshot_at_shares=[0.34]")
    kept, trainer = run.checkpoints / "0-contrast" / "kept", held(run)
    kept.mkdir(parents=True)
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        """What the trainer does between two looks of the follower."""
        pauses.append(seconds)
        if len(pauses) < 4:
            (kept / f"step-{len(pauses):08d}.safetensors").touch()
        elif len(pauses) == 5:
            trainer.kill()
            trainer.wait()

    steps = [one.step for one in follow(run, recipe_of(run), poll=1.0, patience=3.0, sleep=sleep)]
    assert steps == [1, 2, 3]
    assert len(pauses) == 5 + 3 and "nobody trains" in log_lines[-1]  # killed: it waited a while, in vain


def test_a_finished_run_is_followed_to_its_last_checkpoint(place: Path, tmp_path: Path) -> None:
    run = started(place, tmp_path, "stages.0.evaluation.snapshot_at_shares=[0.34]")
    train_run(run)
    assert [one.step for one in follow(run, recipe_of(run))] == [2, 6]


def test_it_goes_on_where_it_was_killed(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The tests stay as they are.
    monkeypatch.setattr("gemma4vec.machine.processes.priority.lower_priority", lambda: None)
    run = started(place, tmp_path, "stages.0.evaluation.snapshot_every_steps=2")
    train_run(run)
    command = ["eval", str(run.path), "--checkpoints", "--follow", "--json"]
    assert execute(command) == 0
    first = json.loads(capsys.readouterr().out)
    done = run.evaluation("checkpoint-0-00000004", first["suite"]) / "metrics.json"
    before = {file: file.stat().st_mtime_ns for file in run.path.glob("evals/checkpoint-*/*/metrics.json")}
    for file in done.parent.iterdir():
        file.unlink()
    assert execute(command) == 0
    assert json.loads(capsys.readouterr().out) == first
    changed = [file for file, time_ns in before.items() if file.stat().st_mtime_ns != time_ns]
    assert changed == [done]  # the others were there, of the same weights


def test_a_second_one_waits_for_the_first(log_lines: list[str], place: Path, tmp_path: Path) -> None:
    run = started(place, tmp_path)
    code = "import sys, fcntl\nstream = open(sys.argv[1], 'w')\nfcntl.lockf(stream, fcntl.LOCK_EX)\n"
    code += "print('held', flush=True)\n"
    code += "sys.stdin.read()"
    first = forked.Popen(
        [sys.executable, "-c", code, str(run.path / beside.LOCK)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert first.stdout is not None and first.stdout.readline() == "held\n"

    def release() -> None:
        while not log_lines:
            time.sleep(0.01)
        assert first.stdin is not None
        first.stdin.close()  # ends it

    waiting = threading.Thread(target=release)
    waiting.start()
    with beside.only_one(run):
        assert first.wait() == 0
    waiting.join()
    assert "another process evaluates" in log_lines[0]


def test_a_trainer_is_never_refused_by_somebody_who_looks(place: Path, tmp_path: Path) -> None:
    """`is_held` takes the lock for a moment; holding tries again."""
    run = started(place, tmp_path)
    assert not run.is_held()
    trainer = held(run)
    try:
        assert run.is_held()
        with pytest.raises(InputError, match="being trained by another process"), run.hold():
            pass
    finally:
        trainer.kill()
        trainer.wait()
    code = "import sys; from pathlib import Path; from gemma4vec.ledger.run_folder import RunFolder\n"
    code += "run = RunFolder(Path(sys.argv[1]))\nprint('looking', flush=True)\nwhile True: run.is_held()"
    looker = forked.Popen(
        [sys.executable, "-c", code, str(run.path)],
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert looker.stdout is not None and looker.stdout.readline() == "looking\n"
        for _ in range(20):
            with run.hold():
                pass
    finally:
        looker.kill()
        looker.wait()


class FakeChild:
    """Stands for the process that a trainer starts."""

    started: ClassVar[list[Any]] = []

    def __init__(self, command: list[str], **others: Any) -> None:
        self.command, self.others, self.pid, self.ended = command, others, 1, False
        FakeChild.started.append(self)

    def terminate(self) -> None:
        self.ended = True

    def poll(self) -> int | None:
        return None

    def wait(self) -> int:
        return 1


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    monkeypatch.setattr(beside, "subprocess", SimpleNamespace(Popen=FakeChild, DEVNULL=subprocess.DEVNULL))
    monkeypatch.setattr(FakeChild, "started", [])
    return FakeChild.started


def test_ctrl_c_ends_both_and_resuming_starts_it_again(
    log_lines: list[str], place: Path, tmp_path: Path, children: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    run = started(place, tmp_path, "stages.0.evaluation.snapshot_every_steps=2", "stages.0.evaluation.background=true")
    # A shell's background jobs inherit that it is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("gemma4vec.training.loop.save_snapshot", lambda *_: signal.raise_signal(signal.SIGINT))
            train_run(run)
    finally:
        signal.signal(signal.SIGINT, before)
    (child,) = children
    assert child.ended and child.others["start_new_session"] and "RANK" not in child.others["env"]
    assert child.command[-4:] == ["eval", str(run.path.resolve()), "--checkpoints", "--follow"]
    train_run(run)
    assert len(children) == 2 and not children[1].ended
    assert any(
        "warning: background evaluation failed" in line for line in log_lines
    )  # a child that fails fails nothing else
    assert run.manifest["status"] == "finished"


def test_a_run_without_a_dev_suite_is_refused_before_it_trains(
    place: Path, tmp_path: Path, children: list[Any]
) -> None:
    changes = ["stages.0.evaluation={snapshot_every_steps: 2, background: true}"]
    run = start_run(load_recipe(place / "recipe.yaml", changes), tmp_path)
    with pytest.raises(InputError, match=r"stages\.0\.evaluation\.background: there is no dev suite"):
        train_run(run)
    assert not children and not run.events("step")


def test_a_final_suite_is_refused_before_it_trains(place: Path, tmp_path: Path, children: list[Any]) -> None:
    run = started(place, tmp_path, "stages.0.evaluation.snapshot_every_steps=2", "stages.0.evaluation.background=true")
    options = place / "words" / "suite.yaml"
    before = options.read_text()
    options.write_text(before.replace("role: dev", "role: final"))
    try:
        with pytest.raises(InputError, match=r"evaluation\.background: words is a final suite"):
            train_run(run)
        inside = started(place, tmp_path, "stages.0.evaluation.every_steps=2")
        with pytest.raises(InputError, match=r"stages\.0\.evaluation\.suite: words is a final suite"):
            train_run(inside)
        assert not inside.events("step")
    finally:
        options.write_text(before)
    assert not children


def test_the_suite_is_the_one_that_evaluations_inside_see(place: Path, tmp_path: Path) -> None:
    run = started(place, tmp_path)
    beside.note_dev_suite(run, 0, recipe_of(run).stages[0].evaluation, None)
    assert len(dev_suite_of(run, 0).queries) == 20 and dev_suite_of(run, 0).name == "words-20x24"


def test_what_the_command_refuses(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = started(place, tmp_path)
    assert execute(["eval", str(run.path), "--follow"]) == 2
    assert "--suite" in capsys.readouterr().err
    assert execute(["eval", str(run.path), "--follow", "--suite", str(place / "words")]) == 2
    assert "--follow needs --checkpoints" in capsys.readouterr().err


def test_a_damaged_note_of_dev_suites_is_replaced(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "odd", "name: odd\n", dev_suites=["x"])
    note_dev_suite(run, 0, Evaluation(), tmp_path / "suite")
    assert run.manifest["dev_suites"]["0"]["folder"] == str(tmp_path / "suite")


@pytest.mark.parametrize("note", [{"folder": "x"}, {"folder": "x", "max_queries": "3", "max_documents": None}, [], 3])
def test_a_damaged_note_of_the_dev_suite_is_one_line(tmp_path: Path, note: object) -> None:
    run = RunFolder.create(tmp_path, "noted", "name: noted\n")
    run.update_manifest(**{beside.SUITES: {"0": note}})
    with pytest.raises(InputError, match="its note of the dev suite is damaged"):
        dev_suite_of(run, 0)
