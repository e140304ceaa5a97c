"""Two stages in one run: the second goes on from the first's full-precision weights, also after a kill."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import forked
import killed_stages
import pytest
import torch
from asked import asked_for, with_slow
from safetensors.torch import load_file
from tiny_model import TEXTS, write_tiny
from tiny_run import write_rows_file

from gemma4vec.errors import InputError
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.recipe.load import parse_recipe
from gemma4vec.training import run as run_module
from gemma4vec.training.run import start_run, train_run

SOURCE = Path(__file__).resolve().parents[2] / "src"
RECIPE = """
name: stages
model: {{base: {base}, dtype: bf16, max_tokens: 48, lora: {{rank: 4, dropout: 0.1}}}}
stages:
  - name: adapt
    data: [{{name: texts, source: text, path: {texts}}}, {{name: rows, path: {rows}}}]
    task: {{kind: masked_next_token}}
    batch: {{rows: 8}}
    layout: &layout {{row_tokens: 32, tokens_per_forward: 128, compile: false}}
    optimizer: &optimizer {{learning_rate: 0.01, warmup_steps: 0, schedule: constant}}
    budget: {{steps: 4}}
    evaluation: &evaluation {{checkpoint_seconds: 0}}
  - name: contrast
    data: [{{name: rows, path: {rows}}}]
    batch: {{rows: 8}}
    layout: *layout
    optimizer: *optimizer
    budget: {{steps: 3}}
    evaluation: *evaluation
"""


def recipe_text(folder: Path) -> str:
    (folder / "texts.txt").write_text("\n\n".join(TEXTS[:100]) + "\n")
    base, rows = write_tiny(folder / "base", "gemma3", layers=2), write_rows_file(folder / "rows.jsonl")
    return RECIPE.format(base=base, rows=rows, texts=folder / "texts.txt")


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    asked = asked_for(request, "moment")
    folder = tmp_path_factory.mktemp("stages")
    (folder / "recipe.yaml").write_text(recipe_text(folder))
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment |= {"GEMMA4VEC_CACHE": str(folder / "cache"), "GEMMA4VEC_HOME": str(folder / "home")}
    moments = [name for name in killed_stages.MOMENTS if name in asked]
    command = [sys.executable, killed_stages.__file__, str(folder), *moments]
    done = forked.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads((folder / "outcomes.json").read_text())
    assert found[""]["first"] == 0, found[""]["said"]
    return found


@pytest.mark.parametrize("moment", with_slow(list(killed_stages.MOMENTS)[1:], killed_stages.SLOW))
def test_a_killed_run_goes_on_to_the_same_result(outcomes: dict[str, Any], moment: str) -> None:
    plain, outcome = outcomes[""], outcomes[moment]
    assert outcome["first"] == -signal.SIGKILL and outcome["again"] == 0, outcome["said"]
    reached = {
        "in adaptation": ["0-adapt/step-00000002"],
        "between the stages": ["0-adapt/step-00000004"],
        "in contrast": ["0-adapt/step-00000004", "1-contrast/step-00000002"],
        "while contrast's first checkpoint is written": ["0-adapt/step-00000004"],
    }
    assert [name for name in outcome["kept"] if not name.endswith(".part")] == reached[moment]
    for file in ("checkpoints/0-adapt/step-00000004", "checkpoints/1-contrast/step-00000003"):
        expected, found = (load_file(Path(o["run"]) / file / "trained.safetensors") for o in (plain, outcome))
        assert expected.keys() == found.keys() and all(torch.equal(found[name], expected[name]) for name in expected)
    merged = [load_file(Path(o["run"]) / "model" / "model.safetensors") for o in (plain, outcome)]
    assert all(torch.equal(merged[0][name], merged[1][name]) for name in merged[0])


def test_adaptation_learns(outcomes: dict[str, Any]) -> None:
    steps = RunFolder(Path(outcomes[""]["run"])).events("step")
    losses = [step["loss"] for step in steps if step["stage"] == 0]
    assert len(losses) == 4 and losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize("kill_between", [False, True])
def test_the_next_stage_starts_from_full_precision(
    tmp_path: Path, kill_between: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A second stage whose steps are of 1e-30 must hand on what the first one ended with, to the last bit of fp32.
    still = ["stages.1.optimizer.learning_rate=1e-30", "stages.1.optimizer.weight_decay=0"]
    run = start_run(parse_recipe(recipe_text(tmp_path), "r", still), tmp_path)
    if kill_between:
        with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="killed"):
            patched.setattr(run_module.Trainer, "_evaluator", _killed_in_stage_1)
            train_run(run)
    train_run(run)
    (first,), (second,) = run.checkpoints.glob("0-*/step-*"), run.checkpoints.glob("1-*/step-*")
    before, after = (load_file(folder / "trained.safetensors") for folder in (first, second))
    assert before.keys() == after.keys()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=1e-28)
    assert any(not torch.equal(value, value.bfloat16().float()) for value in before.values())


def _killed_in_stage_1(trainer: run_module.Trainer, settings: Any, loaded: Any) -> None:
    if settings is trainer.recipe.stages[1].evaluation:
        raise RuntimeError("killed")


def test_bad_data_of_a_later_stage_is_refused_before_weights_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "build", lambda *_, **__: pytest.fail("weights were loaded"))
    wrong = {
        "stages.1.task={hard_negatives: 3}": r"^stages\.1\.task\.hard_negatives: 3 asked for, 24 of 24 rows",
        "stages.0.task={kind: masked_next_token, mask_token: <no>}": r"^stages\.0\.task\.mask_token: ",
        "stages.1.batch.rows=99": r"^stages\.1\.batch\.rows: 99 rows asked for, the data has 24",
    }
    text = recipe_text(tmp_path)
    for number, (change, message) in enumerate(wrong.items()):
        run = start_run(parse_recipe(text, "r", [change]), tmp_path / str(number))
        with pytest.raises(InputError, match=message):
            train_run(run)
    with pytest.raises(InputError, match=r"stages\.0\.task: masked_next_token teaches bidirectional attention"):
        parse_recipe(text, "r", ["model.attention=causal"])
