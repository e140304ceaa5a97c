"""The loop: what it writes, what it computes, and how it stops."""

import json
import math
import re
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import write_tiny
from tiny_run import WithLoss, make_stage

from gemma4vec.errors import WorkError
from gemma4vec.training import loop
from gemma4vec.training.engine.checkpoint import latest_checkpoint, read_progress, trained_weights
from gemma4vec.training.engine.optimizer import MasterAdamW, learning_rate
from gemma4vec.training.engine.task import Loss
from gemma4vec.training.loop import train_stage
from gemma4vec.training.stage import Stage


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("base"), "gemma3", layers=2)


def losses(stage: Stage) -> list[float]:
    return [event["loss"] for event in stage.run.events("step")]


def test_a_short_budget_in_rows_is_not_compiled_either(base: Path, tmp_path: Path) -> None:
    stage = make_stage(base, tmp_path, budget={"rows": 16}, layout={"compile": "auto"})
    assert train_stage(stage, seed=0).step == 2
    (prepared,) = stage.run.events("prepared")
    assert not prepared["compile"] and "too short" in prepared["compile_reason"]


def test_a_run_learns_and_writes_down_what_it_did(base: Path, tmp_path: Path) -> None:
    stage = make_stage(base, tmp_path, budget={"steps": 12}, lora={"dropout": 0.0})
    progress = train_stage(stage, seed=0)
    found = losses(stage)
    assert len(found) == 12 and all(math.isfinite(loss) for loss in found)
    assert sum(found[-3:]) < 0.7 * sum(found[:3])
    assert (progress.step, progress.batch, progress.rows) == (12, 12, 96) and progress.seconds > 0
    first, last = stage.run.events("step")[0], stage.run.events("step")[-1]
    assert first["learning_rate"] == 0.005 and first["gradient_norm"] > 0 and first["rows"] == 8
    assert [e["learning_rate"] for e in stage.run.events("step")] == [
        learning_rate(stage.settings.optimizer, step, 12) for step in range(12)
    ]
    assert last["step"] == 12 and last["tokens"] == progress.tokens and 0 <= last["padding_share"] < 0.5
    finished = stage.run.events("stage_finished")[0]
    assert (finished["steps"], finished["tokens"], finished["rows"]) == (12, progress.tokens, 96)
    assert finished["peak_memory_bytes"] > 1_000_000
    prepared = stage.run.events("prepared")[0]
    assert prepared["compile"] is False and prepared["probe"]["future_to_past"] > 0
    assert all({"time", "event"} <= event.keys() for event in stage.run.events())
    assert [path.name for path in stage.folder.iterdir()] == ["step-00000012"]
    assert stage.bar.done == stage.bar.total == 12


def test_a_finished_stage_is_not_trained_again(base: Path, tmp_path: Path) -> None:
    stage = make_stage(base, tmp_path, budget={"steps": 3})
    train_stage(stage, seed=0)
    again = make_stage(base, tmp_path, budget={"steps": 3}, run=stage.run)
    assert train_stage(again, seed=0).step == 3
    assert len(losses(again)) == 3
    assert len(again.run.events("stage_finished")) == 1 and len(again.run.events("prepared")) == 1
    for name, value in again.built.trainable().items():  # the stage after it goes on from there
        assert torch.equal(value, stage.built.trainable()[name])
    for name, parameter in again.built.trainable().items():
        assert torch.equal(parameter, stage.built.trainable()[name])


def test_only_adapters_change(base: Path, tmp_path: Path) -> None:
    stage = make_stage(base, tmp_path)
    before = {name: p.detach().clone() for name, p in stage.built.encoder.named_parameters()}
    train_stage(stage, seed=0)
    changed = {n for n, p in stage.built.encoder.named_parameters() if not torch.equal(p, before[n])}
    assert changed == set(stage.built.trainable()) and all("lora_" in name for name in changed)


class Recording(MasterAdamW):
    """Keeps the gradients that it is given."""

    seen: list[dict[str, torch.Tensor]]

    def step(self, learning_rate: float) -> float:
        self.seen.append({name: p.grad.clone() for name, p in self.parameters.items() if p.grad is not None})
        return super().step(learning_rate)


def test_accumulated_gradients_are_the_mean_of_the_batches(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Recording.seen = []
    monkeypatch.setattr(loop, "MasterAdamW", Recording)
    stage = make_stage(base, tmp_path, dtype=torch.float64, batch={"accumulate": 2}, budget={"steps": 2})
    start = make_stage(base, tmp_path, dtype=torch.float64)
    progress = train_stage(stage, seed=0)
    assert (progress.step, progress.batch, progress.rows) == (2, 4, 32)
    alone = []
    for batch in islice(start.task.batches(), 2):
        parameters = start.built.trainable()
        value = start.task.loss(start.built, batch).value
        alone.append(torch.autograd.grad(value, list(parameters.values())))
        assert value.item() > 0
    for name, one, other in zip(start.built.trainable(), *alone, strict=True):
        torch.testing.assert_close(Recording.seen[0][name], (one + other) / 2, rtol=0, atol=1e-12)
    values = [start.task.loss(start.built, batch).value.item() for batch in islice(start.task.batches(), 2)]
    assert losses(stage)[0] == pytest.approx(sum(values) / 2, abs=1e-12)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradient_checkpointing_changes_no_loss(base: Path, tmp_path: Path, dropout: float) -> None:
    found = []
    for on in (False, True, "selective"):
        stage = make_stage(base, tmp_path, lora={"dropout": dropout}, layout={"gradient_checkpointing": on})
        train_stage(stage, seed=0)
        found.append(losses(stage))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("layout", [{"kind": "padded"}, {"grouping": "separate"}])
def test_layouts_give_the_same_losses_in_fp32(base: Path, tmp_path: Path, layout: dict[str, str]) -> None:
    plain, other = make_stage(base, tmp_path), make_stage(base, tmp_path, layout=layout)
    train_stage(plain, seed=0)
    train_stage(other, seed=0)
    assert losses(other) == pytest.approx(losses(plain), abs=1e-4)


def test_seeds_give_other_runs_and_the_same_seed_the_same(base: Path, tmp_path: Path) -> None:
    found = []
    for seed in (0, 0, 1):
        stage = make_stage(base, tmp_path, lora={"dropout": 0.3})
        train_stage(stage, seed=seed)
        found.append(losses(stage))
    assert found[0] == found[1] != found[2]


def broken_at(stage: Stage, number: int, change: Any) -> None:
    """Let `change` at the `number`-th loss (from 1) of the stage."""
    real, calls = stage.task.loss, 0

    def loss(built: Any, batch: Any) -> Loss:
        nonlocal calls
        calls += 1
        found = real(built, batch)
        return change(found) if calls == number else found

    stage.task = WithLoss(stage.task, loss)


@pytest.mark.parametrize(("value", "word"), [(math.nan, "NaN"), (math.inf, "infinite")])
def test_a_loss_that_is_not_finite_stops_the_run(base: Path, tmp_path: Path, value: float, word: str) -> None:
    stage = make_stage(base, tmp_path, dtype=torch.bfloat16 if word == "NaN" else torch.float32)
    broken_at(stage, 3, lambda found: replace(found, value=found.value * value))
    advice = "learning_rate or model.dtype=fp32" if word == "NaN" else "learning_rate"
    with pytest.raises(WorkError, match=rf"the loss is {word} at step 3; .*{re.escape(advice)}$") as caught:
        train_stage(stage, seed=0)
    file = stage.run.path / "bad-batch-step-3.json"
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)
    batch = json.loads(file.read_text())
    drawn = next(make_stage(base, tmp_path).task.batches(2)).texts
    assert batch["queries"] == drawn.queries and [text for text, _ in batch["positives"]] == [
        document.text for document in drawn.positives
    ]
    checkpoint = latest_checkpoint(stage.folder)
    assert checkpoint is not None and read_progress(checkpoint).step == 2
    assert all(torch.isfinite(weight).all() for weight in trained_weights(checkpoint).values())


def test_a_gradient_that_is_not_finite_stops_the_run_before_it_is_used(base: Path, tmp_path: Path) -> None:
    stage = make_stage(base, tmp_path)

    def poison(found: Loss) -> Loss:
        found.value.register_hook(lambda gradient: gradient * math.nan)
        return found

    broken_at(stage, 4, poison)  # the last step: nothing after it would notice
    with pytest.raises(WorkError, match=r"the gradient is NaN at step 4; its batch is in .*bad-batch-step-4\.json"):
        train_stage(stage, seed=0)
    assert all(torch.isfinite(p).all() for p in stage.built.trainable().values())
    checkpoint = latest_checkpoint(stage.folder)
    assert checkpoint is not None and read_progress(checkpoint).step == 3


def test_it_evaluates_every_n_steps_and_at_the_end_and_keeps_the_best(
    log_lines: list[str], base: Path, tmp_path: Path
) -> None:
    scores = iter([0.2, 0.5, 0.4])
    seen = []

    def evaluate() -> tuple[float, dict[str, Any]]:
        score = next(scores)
        seen.append({name: p.detach().clone() for name, p in stage.built.trainable().items()})
        return score, {"suite": "made", "ndcg@10": score}

    stage = make_stage(base, tmp_path, evaluate=evaluate, budget={"steps": 5}, evaluation={"every_steps": 2})
    progress = train_stage(stage, seed=0)
    events = stage.run.events("evaluation")
    assert [(e["step"], e["ndcg@10"], e["suite"]) for e in events] == [
        (2, 0.2, "made"),
        (4, 0.5, "made"),
        (5, 0.4, "made"),
    ]
    assert (progress.best_score, progress.best_step) == (0.5, 4)
    best = stage.folder / "best"
    assert read_progress(best).step == 4 and read_progress(best).best_score == 0.5
    for name, weight in trained_weights(best).items():
        assert torch.equal(weight, seen[1][name])
    assert any("nDCG@10 0.5000 on made" in line for line in log_lines)


def test_it_evaluates_after_shares_of_the_steps(base: Path, tmp_path: Path) -> None:
    def evaluate() -> tuple[float, dict[str, Any]]:
        return 0.1, {"suite": "made"}

    stage = make_stage(base, tmp_path, evaluate=evaluate, budget={"rows": 80}, evaluation={"at_shares": [0.01, 0.5]})
    train_stage(stage, seed=0)
    assert [event["step"] for event in stage.run.events("evaluation")] == [1, 5]


def test_evaluation_changes_no_later_loss(base: Path, tmp_path: Path) -> None:
    plain = make_stage(base, tmp_path, lora={"dropout": 0.3})
    train_stage(plain, seed=0)

    def evaluate() -> tuple[float, dict[str, Any]]:
        from gemma4vec.model.inference.embedder import Embedder

        embedder = Embedder(watched.built, name="x", fingerprint="x", max_tokens=48)
        return float(embedder.encode_query(["sort the tree"])[0, 0]), {"suite": "made"}

    watched = make_stage(base, tmp_path, evaluate=evaluate, lora={"dropout": 0.3}, evaluation={"every_steps": 1})
    train_stage(watched, seed=0)
    assert losses(watched) == losses(plain)


def test_a_failing_probe_stops_before_the_first_step(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gemma4vec.model.backbone import backbone

    whole = backbone.attention_mask
    monkeypatch.setattr(backbone, "attention_mask", lambda *a, **k: whole(*a, **{**k, "causal": True}))
    stage = make_stage(base, tmp_path)
    with pytest.raises(WorkError, match="attention probe"):
        train_stage(stage, seed=0)
    assert not stage.run.events("step") and not stage.folder.exists()


@pytest.mark.parametrize("budget", [{"minutes": 0.0001}, {"tokens": 10}, {"rows": 24}])
def test_other_budgets_end_too(base: Path, tmp_path: Path, budget: dict[str, float]) -> None:
    stage = make_stage(base, tmp_path, budget=budget)
    assert train_stage(stage, seed=0).step == 3
    assert len(stage.run.events("budget")) == (0 if "rows" in budget else 1)


def test_ctrl_c_says_how_to_go_on(base: Path, tmp_path: Path) -> None:
    stage = make_stage(base, tmp_path, evaluation={"checkpoint_seconds": 1000})

    def press(found: Loss) -> Loss:
        raise KeyboardInterrupt

    broken_at(stage, 3, press)
    with pytest.raises(KeyboardInterrupt, match=f"gemma4vec train --resume {re.escape(str(stage.run.path))}"):
        train_stage(stage, seed=0)
    checkpoint = latest_checkpoint(stage.folder)
    assert checkpoint is not None and read_progress(checkpoint).step == 2
