"""The model of an unfinished run, for mining with what it has learned so far."""

from pathlib import Path

import pytest
from export_recipe import write_recipe

from gemma4vec.cli.main import execute
from gemma4vec.data.rows.rows import read_rows
from gemma4vec.errors import InputError
from gemma4vec.recipe.load import load_recipe
from gemma4vec.training.export_snapshot import snapshot
from gemma4vec.training.run import start_run, train_run


def test_a_run_without_its_model_mines_from_its_newest_checkpoint(log_lines: list[str], tmp_path: Path) -> None:
    run = start_run(load_recipe(write_recipe(tmp_path)), tmp_path / "runs")
    with pytest.raises(InputError, match="no checkpoint yet"):
        snapshot(run)
    train_run(run)
    finished = {file.name: file.read_bytes() for file in run.model.glob("*.safetensors")}
    run.model.rename(run.path / "gone")
    log_lines.clear()
    folder = snapshot(run)
    assert "step 6" in log_lines[0] and finished
    assert {file.name: file.read_bytes() for file in folder.glob("*.safetensors")} == finished
    assert snapshot(run) == folder and len([line for line in log_lines if "is not finished" in line]) == 1
    out = tmp_path / "mined.jsonl"
    command = ["data", "mine", str(tmp_path / "rows.jsonl"), "--out", str(out), "--model", str(run.path)]
    assert execute([*command, "-n", "2", "--ranks", "1-8", "--share", "99"]) == 0
    assert all(len(row.neg) == 2 for row in read_rows(out).rows)
