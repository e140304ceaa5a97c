"""SIGTERM and SIGUSR1 stop a training at a step boundary, with a checkpoint; elsewhere at once."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import write_tiny
from tiny_run import WithLoss, make_stage

from gemma4vec.errors import Interrupted
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.training.engine.checkpoint import latest_checkpoint, trained_weights
from gemma4vec.training.loop import train_stage
from gemma4vec.training.outcome import record_outcome
from gemma4vec.training.processes.stop_signals import TOLD, TORCHRUN_VARIABLE, StopSignals
from gemma4vec.training.stage import Stage

SIGNALS = [signal.SIGTERM, signal.SIGUSR1]
SOURCE = Path(__file__).resolve().parents[3] / "src"
# The command as it starts, whose imports take for ever.
STARTS = """
import sys, time, types
def run(words):
    print("importing", flush=True)
    time.sleep(600)
sys.modules["gemma4vec.cli.main"] = types.SimpleNamespace(run=run)
from gemma4vec.__main__ import run
run(sys.argv[1:])
"""


@pytest.fixture(autouse=True)
def handlers_return() -> Iterator[None]:
    before = [signal.getsignal(one) for one in SIGNALS]
    yield
    assert [signal.getsignal(one) for one in SIGNALS] == before


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_outside_of_a_step_raises_at_once(number: signal.Signals) -> None:
    signals = StopSignals()
    with pytest.raises(Interrupted, match=f"stopped by {number.name}") as caught, signals.caught():
        os.kill(os.getpid(), number)
    assert caught.value.exit_code == 75 and not caught.value.agreed


def test_in_a_step_a_signal_is_only_noted_and_the_first_one_counts() -> None:
    signals = StopSignals()
    with signals.caught(), signals.noted_only():
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.name == "SIGUSR1"
        assert signals.unless_stopped(lambda: 1) is None  # work that has not begun is not begun


def test_work_between_steps_is_cut_off() -> None:
    signals, done = StopSignals(), []

    def work() -> str:
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("the rest")
        return "score"

    with signals.caught(), signals.noted_only():
        assert signals.unless_stopped(lambda: "score") == "score"
        assert signals.unless_stopped(work) is None
        assert signals.name == "SIGTERM" and not done


def test_a_handler_of_the_calling_program_stays() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
    try:
        with StopSignals().caught():
            os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen == [signal.SIGUSR1]


def stopped_early(number: signal.Signals, *words: str) -> tuple[int, str]:
    """The exit code of a command that a signal meets before its imports are done, and what it says."""
    process = subprocess.Popen(
        [sys.executable, "-c", STARTS, *words],
        env=os.environ | {"PYTHONPATH": str(SOURCE), TORCHRUN_VARIABLE: str(os.getpid())},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGUSR1, signal.SIG_IGN),  # as below a torchrun
    )
    assert process.stdout is not None and process.stdout.readline() == "importing\n"
    process.send_signal(number)
    return process.wait(600), process.communicate()[1]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """What this process is told as the torchrun of others."""
    seen: list[int] = []
    before = signal.signal(TOLD, lambda number, frame: seen.append(number))
    yield seen
    signal.signal(TOLD, before)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_during_imports_ends_with_75(number: signal.Signals, told: list[int]) -> None:
    ended = stopped_early(number, "--traceback", "train", "recipe.yaml")
    assert ended == (75, f"interrupted: stopped by {number.name}; start it again\n")
    # torchrun sends SIGTERM itself, to those that are left when one has died.
    assert told == ([TOLD] if number is signal.SIGUSR1 else [])


@pytest.mark.parametrize("number", SIGNALS)
def test_torchrun_is_told_of_a_stop_that_no_death_has_caused(
    number: signal.Signals, told: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getppid", os.getpid)
    monkeypatch.setenv(TORCHRUN_VARIABLE, str(os.getpid()))
    signals = StopSignals()
    with pytest.raises(Interrupted), signals.caught():
        os.kill(os.getpid(), number)
    assert told == ([TOLD] if number is signal.SIGUSR1 else [])
    told.clear()
    assert StopSignals().agreed("after step 3").agreed and told == [TOLD]


def test_signals_after_all_have_agreed_to_stop_change_nothing() -> None:
    signals = StopSignals()
    with signals.caught():
        with signals.noted_only():
            stopped = signals.agreed("after step 3")
        os.kill(os.getpid(), signal.SIGUSR1)  # to all processes of a job, by its scheduler
    assert str(stopped) == "stopped by a signal to another process after step 3" and stopped.agreed


def test_a_command_that_cannot_go_on_ends_as_any_program() -> None:
    assert stopped_early(signal.SIGTERM, "eval", "train") == (-signal.SIGTERM, "")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("base"), "gemma3", layers=1)


def stage_of(base: Path, out: Path, **parts: Any) -> Stage:
    parts.setdefault("evaluation", {"checkpoint_seconds": 1000, "every_steps": 2})
    return make_stage(base, out, lora={"dropout": 0.3}, **parts)


def stopped_in(stage: Stage, step: int) -> Interrupted:
    """Train until a signal that comes in the middle of a step stops the stage."""
    real = stage.task.loss

    def loss(built: Any, batch: Any) -> Any:
        if len(stage.run.events("step")) == step - 1:
            os.kill(os.getpid(), signal.SIGUSR1)
        return real(built, batch)

    stage.task = WithLoss(stage.task, loss)
    with pytest.raises(Interrupted) as caught, stage.signals.caught(), record_outcome(stage.run):
        train_stage(stage, seed=0)
    return caught.value


def weights(stage: Stage) -> dict[str, torch.Tensor]:
    checkpoint = latest_checkpoint(stage.folder)
    assert checkpoint is not None
    return trained_weights(checkpoint)


def test_a_stopped_run_goes_on_to_the_weights_of_an_undisturbed_one(base: Path, tmp_path: Path) -> None:
    straight = stage_of(base, tmp_path / "straight")
    train_stage(straight, seed=0)
    stopped = stage_of(base, tmp_path / "stopped")
    error = stopped_in(stopped, 3)
    assert "stopped by SIGUSR1 after step 3; go on with: gemma4vec train --resume" in str(error) and error.agreed
    assert [path.name for path in stopped.folder.glob("step-*")] == ["step-00000003"]
    manifest = stopped.run.manifest
    assert manifest["status"] == "interrupted" and "SIGUSR1" in manifest["stopped_by"]
    assert [event["event"] for event in stopped.run.events()][-1] == "interrupted"

    again = stage_of(base, tmp_path, run=RunFolder(stopped.run.path))
    train_stage(again, seed=0)
    assert weights(again).keys() == weights(straight).keys()
    for name, value in weights(straight).items():
        assert torch.equal(weights(again)[name], value), name


def test_an_evaluation_that_was_cut_off_is_made_when_the_run_goes_on(base: Path, tmp_path: Path) -> None:
    def cut_off() -> tuple[float, dict[str, Any]]:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal cuts it off")

    def whole() -> tuple[float, dict[str, Any]]:
        return 0.5, {"suite": "tiny"}

    stage = stage_of(base, tmp_path, evaluate=cut_off)
    with pytest.raises(Interrupted, match="after step 2"), stage.signals.caught():
        train_stage(stage, seed=0)
    again = stage_of(base, tmp_path, run=stage.run, evaluate=whole)
    progress = train_stage(again, seed=0)
    assert [event["step"] for event in stage.run.events("evaluation")] == [2, 4] and progress.best_step == 2


def test_a_signal_after_the_last_step_loses_no_evaluation(base: Path, tmp_path: Path) -> None:
    calls: list[int] = []

    def evaluate() -> tuple[float, dict[str, Any]]:
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return 0.5, {"suite": "tiny"}

    stage = stage_of(base, tmp_path, evaluate=evaluate)
    with pytest.raises(Interrupted, match="after step 4"), stage.signals.caught():
        train_stage(stage, seed=0)
    assert not stage.run.events("stage_finished")
    train_stage(stage_of(base, tmp_path, run=stage.run, evaluate=evaluate), seed=0)
    assert [event["step"] for event in stage.run.events("evaluation")] == [2, 4]
    assert len(stage.run.events("stage_finished")) == 1
