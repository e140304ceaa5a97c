"""A signal stops the training of a matrix's cell after its step, and the same command goes on to the same weights."""

import signal
from pathlib import Path
from typing import Any

import pytest
import stopped_jobs
import torch
from matrix_plans import matrix
from safetensors.torch import load_file
from tiny_matrix import write_matrix, write_place

from gemma4vec.ledger.run_folder import RunFolder, list_runs
from gemma4vec.pipeline.matrix import run as matrices


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_place(tmp_path_factory.mktemp("matrix"))


def weights(run: RunFolder) -> dict[str, torch.Tensor]:
    (last,) = run.checkpoints.rglob("step-*")
    return load_file(last / "trained.safetensors")


def test_a_stopped_matrix_goes_on_to_the_same_weights(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = {"recipes": ["mean"], "learning_rates": [0.01], "references": []}
    seldom = ["stages.*.evaluation.checkpoint_seconds=1000"]  # the signal alone makes a checkpoint
    file = write_matrix(place, "stopped", overrides=seldom, budget={"rows": 8 * 5}, **changes)
    assert matrix(file, tmp_path / "straight", place)[0] == 0
    (straight,) = list_runs(tmp_path / "straight" / "runs")

    with monkeypatch.context() as patch:
        stopped_jobs.choose(patch, "between update and copy", signal.SIGTERM, "command server")
        patch.setattr(matrices, "run_cell", stopped_jobs.run_stopped_cell)
        code, _, said = matrix(file, tmp_path / "out", place)
    assert (
        code == 75 and said.strip().splitlines()[-1] == "interrupted: stopped by SIGTERM; go on with: the same command"
    )
    (run,) = list_runs(tmp_path / "out" / "runs")
    assert run.manifest["status"] == "interrupted"
    assert [event["step"] for event in run.events("step")] == [1, 2, 3]
    assert [path.name for path in run.checkpoints.rglob("step-*")] == ["step-00000003"]

    code, printed, said = matrix(file, tmp_path / "out", place)
    assert code == 0, said
    assert printed["rows"][0]["status"] == "done"
    assert [event["step"] for event in run.events("step")] == [1, 2, 3, 4, 5]
    found, expected = weights(run), weights(straight)
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)
