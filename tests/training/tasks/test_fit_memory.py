"""What does not fit into memory is computed again, in smaller micro-batches: said, and with the same result."""

from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import write_tiny
from tiny_run import RECIPE, make_stage, write_rows_file

from gemma4vec.cli.main import execute
from gemma4vec.data.loading.load_rows import TrainingData
from gemma4vec.ledger.run_folder import list_runs
from gemma4vec.machine import dtype, memory
from gemma4vec.machine.device import DeviceChoice
from gemma4vec.machine.memory import DeviceMemory
from gemma4vec.model.backbone.lm_head import load_head
from gemma4vec.recipe import schema
from gemma4vec.training import run
from gemma4vec.training.batches.fit_memory import BatchMemory, Fit, fit, measure_needs
from gemma4vec.training.engine.task import MemoryPlan
from gemma4vec.training.loop import train_stage
from gemma4vec.training.tasks.contrastive import ContrastTask
from gemma4vec.training.tasks.make_task import make_task

AUTO, ON, OFF = schema.Layout(), schema.Layout(grad_cache=True), schema.Layout(grad_cache=False)
NEEDS = BatchMemory(per_cell=1e6, cells=20_000.0, largest=2048.0, row=256, fixed=1e9)  # 26.0, 3.6 and 1.3 GB, all told
LARGE = 200e9


def test_what_fits_is_left_as_it_is() -> None:
    assert fit(AUTO, NEEDS, DeviceMemory(30e9, LARGE)) == Fit(False, 2048)
    assert fit(OFF, NEEDS, DeviceMemory(30e9, 31e9)) == Fit(False, 2048)
    assert fit(ON, NEEDS, DeviceMemory(30e9, LARGE)) == Fit(True, 2048)
    assert fit(ON, NEEDS, DeviceMemory(30e9, LARGE), can_cache=False) == Fit(False, 2048)


def test_auto_computes_again_what_is_half_of_all_memory_or_more_than_is_free() -> None:
    for given_memory in (DeviceMemory(30e9, 35e9), DeviceMemory(10e9, LARGE)):
        found = fit(AUTO, NEEDS, given_memory)
        assert found.cached and found.tokens_per_forward == 2048 and "GradCache is on" in found.remark
    # One micro-batch of half the memory is kept as it is: computing it again would save nothing.
    assert not fit(AUTO, BatchMemory(1e6, 2048.0, 2048.0, 256, 0.0), DeviceMemory(4e9, 4e9)).cached


def test_micro_batches_are_cut_to_whole_rows_that_fit() -> None:
    for layout in (AUTO, ON):
        found = fit(layout, NEEDS, DeviceMemory(2.5e9, LARGE))
        assert found.cached and found.tokens_per_forward == 768
        assert "2.5 GB are free, micro-batches of 2,048 tokens need about 3.6 GB: they are cut to 768" in found.remark
    hopeless = fit(AUTO, NEEDS, DeviceMemory(1.1e9, LARGE))
    assert hopeless.tokens_per_forward == 256 and hopeless.remark.startswith("warning: ")


def test_what_the_recipe_or_the_task_forbids_is_a_warning() -> None:
    refused = fit(OFF, NEEDS, DeviceMemory(10e9, LARGE))
    assert (
        not refused.cached and "needs about 26.0 GB and 10.0 GB are free; set layout.grad_cache=auto" in refused.remark
    )
    masked = fit(AUTO, NEEDS, DeviceMemory(10e9, LARGE), can_cache=False)
    assert not masked.cached and "a smaller batch.rows with more batch.accumulate" in masked.remark


@given(st.floats(1e3, 1e8), st.integers(1, 40), st.integers(1, 8), st.floats(0, 1e10), st.floats(1e6, 1e12))
def test_whatever_is_chosen_fits_or_is_warned_of(
    per_cell: float, rows: int, micro_batches: int, fixed: float, free: float
) -> None:
    largest = min(rows * 64, 2048)
    needs = BatchMemory(per_cell, float(largest * micro_batches), float(largest), 64, fixed)
    found = fit(AUTO, needs, DeviceMemory(free, 2 * free))
    cells = min(found.tokens_per_forward, largest) if found.cached else needs.cells
    assert needs.at_once(cells) <= free or found.remark.startswith("warning: ")
    assert 64 <= found.tokens_per_forward <= 2048


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("base"), "gemma3", layers=2)


def test_a_stage_without_room_trains_to_the_same_losses(
    log_lines: list[str], base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(pretended: bool) -> tuple[list[float], dict[str, Any]]:
        stage = make_stage(base, tmp_path, batch={"rows": 16})
        task = stage.task
        assert isinstance(task, ContrastTask)
        if pretended:
            rows = next(task.draw())
            needs = measure_needs(
                stage.built, task.stage.layout, lambda other: task.lay_out_batch(rows, MemoryPlan(other)).layouts
            )
            free = 1.01 * needs.at_once(needs.row) / 0.9
            monkeypatch.setattr(memory, "memory_bytes", lambda: (int(1e12), int(free)))
            assert needs.largest > needs.row
        log_lines.clear()
        train_stage(stage, seed=0)
        assert sum(line.startswith("memory: ") for line in log_lines) == pretended
        (prepared,) = stage.run.events("prepared")
        plan = task.plan_memory(stage.built, prepared)
        assert (max(one.all_tokens for one in next(task.batches(plan=plan)).layouts) <= 64) is pretended
        assert task.stage is stage.settings  # the plan is handed over, the task stays as it was made
        return [event["loss"] for event in stage.run.events("step")], prepared

    plain, before = trained(False)
    cut, prepared = trained(True)
    assert cut == pytest.approx(plain, abs=1e-5)
    assert before["tokens_per_forward"] == 128 and before["grad_cache"] is False
    assert prepared["tokens_per_forward"] < 128 and prepared["grad_cache"] is True
    # A run that goes on where there is room again keeps what it began with.
    monkeypatch.setattr(memory, "memory_bytes", lambda: (int(1e12), int(1e12)))
    stage = make_stage(base, tmp_path, batch={"rows": 16})
    kept = {name: prepared[name] for name in ("grad_cache", "tokens_per_forward")}
    assert stage.task.plan_memory(stage.built, prepared).fields() == kept


def test_a_task_is_complete_when_it_is_made(base: Path, tmp_path: Path) -> None:
    stage = make_stage(base, tmp_path)
    parts = dict(vars(stage.task))
    train_stage(stage, seed=0)
    assert all(vars(stage.task)[name] is part for name, part in parts.items()) and len(vars(stage.task)) == len(parts)
    texts = schema.Stage.model_validate(
        {
            "data": [{"name": "t", "source": "text", "path": "t.txt"}],
            "task": {"kind": "masked_next_token"},
            "batch": {"rows": 2},
            "budget": {"steps": 1},
        }
    )
    loaded = TrainingData(texts=["a file", "a tree", "a graph"])
    head = load_head(stage.built.encoder.backbone, base)
    masked = make_task(texts, loaded, stage.built, lambda: head, max_tokens=48, seed=0)
    for task in (stage.task, masked):
        for name in vars(task):
            with pytest.raises(FrozenInstanceError):
                setattr(task, name, None)


@pytest.mark.slow
def test_a_run_on_a_poor_machine_says_why_once_and_trains_as_elsewhere(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No compiler in the PATH, a CPU without bf16, a GPU that is too old, next to no memory."""
    recipe = tmp_path / "recipe.yaml"
    text = RECIPE.format(base=base, rows=write_rows_file(tmp_path / "rows.jsonl")).replace("dropout: 0.2", "dropout: 0")
    recipe.write_text(text.replace("dtype: bf16", "dtype: auto"))
    changes = ["stages.0.budget={steps: 30}", "stages.0.batch.accumulate=1"]

    def losses(out: Path, *words: str) -> list[float]:
        assert execute(["train", str(recipe), *changes, *words, "--out", str(out)]) == 0
        (found,) = list_runs(out)
        return [event["loss"] for event in found.events("step")]

    usual = losses(tmp_path / "usual", "stages.0.layout.compile=false", "model.dtype=fp32")
    capsys.readouterr()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(dtype, "cpu_flags", lambda: {"avx2"})
    monkeypatch.setattr(run, "choose_device", lambda: DeviceChoice("cpu", "Example is too old: the CPU is used"))
    monkeypatch.setattr(memory, "memory_bytes", lambda: (int(1e12), 1))
    found = losses(tmp_path / "poor", "stages.0.layout.compile=auto")
    lines = capsys.readouterr().err.splitlines()
    assert found == pytest.approx(usual, abs=1e-4)
    for beginning in (
        "device: cpu (Example is too old",
        "dtype: float32 (fp32: this CPU has no bf16",
        "layers run uncompiled: there is no C++ compiler",
        "warning: memory: 0.0 GB are free",
    ):
        assert sum(beginning in line for line in lines) == 1, (beginning, lines)
