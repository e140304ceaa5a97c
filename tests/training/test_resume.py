"""A run that was killed or interrupted at any moment goes on to the same losses and the same weights."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import forked
import killed_runs
import pytest
import torch
from asked import asked_for, with_slow
from safetensors.torch import load_file
from tiny_model import write_tiny
from tiny_run import RECIPE, write_rows_file

from gemma4vec.ledger.run_folder import RunFolder

SOURCE = Path(__file__).resolve().parents[2] / "src"


EVERY_MOMENT = with_slow(killed_runs.MOMENTS, killed_runs.SLOW)


def moments_of(kind: str) -> list[Any]:
    return with_slow([name for name in killed_runs.MOMENTS if name.startswith(kind)], killed_runs.SLOW)


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    asked = asked_for(request, "moment")
    folder = tmp_path_factory.mktemp("killed")
    base = write_tiny(folder / "base", "llama", layers=2)
    (folder / "recipe.yaml").write_text(RECIPE.format(base=base, rows=write_rows_file(folder / "rows.jsonl")))
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment |= {"GEMMA4VEC_CACHE": str(folder / "cache"), "GEMMA4VEC_HOME": str(folder / "home")}
    moments = [name for name in killed_runs.MOMENTS if name in asked]
    command = [sys.executable, killed_runs.__file__, str(folder), *moments]
    done = forked.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads((folder / "outcomes.json").read_text())
    assert found[""]["first"] == 0, found[""]["said"]
    return found


def weights(outcome: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The trained values of the last checkpoint, and those of the merged model."""
    run = Path(outcome["run"])
    (last,) = run.glob("checkpoints/0-contrast/step-*")
    assert last.name == "step-00000006"
    merged = load_file(run / "model" / "model.safetensors")
    return load_file(last / "trained.safetensors") | {f"merged.{name}": value for name, value in merged.items()}


def losses(outcome: dict[str, Any]) -> dict[int, set[float]]:
    """Every loss that was ever noted for a step."""
    found: dict[int, set[float]] = {}
    for event in RunFolder(Path(outcome["run"])).events("step"):
        found.setdefault(event["step"], set()).add(event["loss"])
    return found


@pytest.mark.parametrize("moment", EVERY_MOMENT)
def test_it_goes_on_to_the_same_result(outcomes: dict[str, Any], moment: str) -> None:
    plain, outcome = outcomes[""], outcomes[moment]
    assert outcome["again"] == 0, outcome["said_again"]
    expected, found = weights(plain), weights(outcome)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    known = losses(plain)
    assert len(known) == 6 and all(len(values) == 1 for values in known.values())
    # A step that was done twice had the same loss twice. Ctrl-C may fall between a step and its line.
    seen = losses(outcome)
    lost = {4} if moment == "interrupt while noting a step" else set()
    assert seen == {step: values for step, values in known.items() if step not in lost}
    leftovers = [path.name for path in Path(outcome["run"]).rglob("*.part")]
    assert RunFolder(Path(outcome["run"])).manifest["status"] == "finished"
    assert len(leftovers) <= 1  # what a kill cut off in the middle


@pytest.mark.parametrize("moment", moments_of("kill"))
def test_a_killed_run_was_really_killed(outcomes: dict[str, Any], moment: str) -> None:
    outcome = outcomes[moment]
    assert outcome["first"] == -signal.SIGKILL
    steps = {
        "kill before the first checkpoint": [],
        "kill in a forward pass": [2],
        "kill between update and copy": [2],
        "kill while a checkpoint is written": [3],
        "kill before the older checkpoint goes": [2, 3],
        "kill while the model is written": [6],
    }[moment]
    assert outcome["checkpoints"] == [f"step-{step:08d}" for step in steps]


@pytest.mark.parametrize(
    ("moment", "step"), [("terminate in a forward pass", 3), ("terminate while the model is written", 6)]
)
def test_sigterm_ends_with_75_at_a_step_boundary(outcomes: dict[str, Any], moment: str, step: int) -> None:
    outcome = outcomes[moment]
    assert outcome["first"] == 75 and outcome["checkpoints"] == [f"step-{step:08d}"]
    last = outcome["said"].strip().splitlines()[-1]
    assert last.startswith("interrupted: stopped by SIGTERM") and "Traceback" not in outcome["said"]
    assert last.endswith(f"; go on with: gemma4vec train --resume {outcome['run']}")
    events = [event["event"] for event in RunFolder(Path(outcome["run"])).events()]
    assert "interrupted" in events and "failed" not in events


@pytest.mark.parametrize("moment", moments_of("interrupt"))
def test_ctrl_c_keeps_the_last_whole_step_and_says_how_to_go_on(outcomes: dict[str, Any], moment: str) -> None:
    outcome = outcomes[moment]
    assert outcome["first"] == 130
    step = {
        "interrupt in a forward pass": 2,
        "interrupt in a backward pass": 3,
        "interrupt while taking a batch": 2,
        "interrupt while noting a step": 4,
        "interrupt between update and copy": None,  # weights are of one step, their copies of another
    }[moment]
    assert outcome["checkpoints"] == ([f"step-{step:08d}"] if step else [])
    last = outcome["said"].strip().splitlines()[-1]
    assert last.startswith("interrupted: stopped after step ") and "Traceback" not in outcome["said"]
    assert last.endswith(f"go on with: gemma4vec train --resume {outcome['run']}")
