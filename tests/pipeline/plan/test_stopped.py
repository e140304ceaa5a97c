"""Signals stop the training of a plan's job as they stop one of `train`, and it goes on to the same weights."""

import signal
from pathlib import Path
from typing import Any

import pytest
import stopped_jobs
import torch
from safetensors.torch import load_file
from tiny_plan import outline_of, write_plan_place

from gemma4vec.errors import Interrupted
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.pipeline.plan import run_plan as plans
from gemma4vec.pipeline.plan.jobs import Outline
from gemma4vec.pipeline.plan.plan_state import PlanFolder, Record

COMMAND = "gemma4vec pipeline plan.yaml --resume"
# What the signal reaches: the command alone, the job alone, or every process, as schedulers do.
COMMAND_ALONE, JOB_ALONE, EVERY = "command", "job", "command server job"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_plan_place(tmp_path_factory.mktemp("plan"))


@pytest.fixture(scope="module")
def outline(place: Path) -> Outline:
    # The signal alone makes a checkpoint.
    changes = {"stages.0.budget.steps": 5, "stages.0.evaluation.checkpoint_seconds": 1000}
    return outline_of(place, {"first": {"train": "pairs.yaml"}}, set=changes)


def run(outline: Outline, out: Path) -> Record:
    """Run the plan, and return its only record."""
    plans.run_plan(outline, out, command=COMMAND)
    return PlanFolder(out).records()["first"]


@pytest.fixture(scope="module")
def straight(outline: Outline, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights of an undisturbed training."""
    return weights(run(outline, tmp_path_factory.mktemp("straight") / "out"))


def weights(record: Record) -> dict[str, torch.Tensor]:
    found = load_file(Path(str(record.model)) / "model.safetensors")
    (last,) = Path(str(record.run)).glob("checkpoints/*/step-*")
    return found | {f"trained.{name}": value for name, value in load_file(last / "trained.safetensors").items()}


@pytest.mark.parametrize(
    ("number", "moment", "reached", "step"),
    [
        (signal.SIGTERM, "loss", COMMAND_ALONE, 3),
        (signal.SIGUSR1, "between update and copy", EVERY, 3),
        (signal.SIGTERM, "between update and copy", JOB_ALONE, 3),
        (signal.SIGUSR1, "scoring", COMMAND_ALONE, 5),
    ],
)
def test_a_stopped_plan_goes_on_to_the_same_weights(
    outline: Outline,
    straight: dict[str, torch.Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    moment: str,
    reached: str,
    step: int,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(plans, "run_job", stopped_jobs.run_stopped_job)
        stopped_jobs.choose(patch, moment, number, reached)
        with pytest.raises(Interrupted) as stopped:
            run(outline, tmp_path / "out")
    by = "a signal to another process" if reached == JOB_ALONE else number.name
    assert (str(stopped.value), stopped.value.exit_code) == (f"stopped by {by}; go on with: {COMMAND}", 75)
    record = PlanFolder(tmp_path / "out").records()["first"]
    assert record.status == "running" and record.reason == ""
    begun = RunFolder(Path(str(record.run)))
    assert [path.name for path in begun.checkpoints.rglob("step-*")] == [f"step-{step:08d}"]
    assert [event["step"] for event in begun.events("step")] == list(range(1, step + 1))
    trained = moment == "scoring"
    assert begun.manifest["status"] == ("finished" if trained else "interrupted")
    if not trained:
        assert f"stopped by {number.name} after step 3" in begun.manifest["stopped_by"]

    again = run(outline, tmp_path / "out")
    assert (again.status, again.run) == ("done", record.run)
    events: list[dict[str, Any]] = begun.events("step")
    assert [event["step"] for event in events] == [1, 2, 3, 4, 5]  # no step was done twice
    found = weights(again)
    assert found.keys() == straight.keys() and all(torch.equal(found[name], straight[name]) for name in straight)
