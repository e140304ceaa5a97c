"""Compiled layers in training: what is run before memory is settled, and what follows where the compiler gives up."""

from pathlib import Path
from typing import Any

import pytest
from tiny_model import write_tiny
from tiny_run import WithLoss, make_stage
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

from gemma4vec.errors import WorkError
from gemma4vec.model.backbone.backbone import Backbone
from gemma4vec.model.backbone.compilation import CompileChoice
from gemma4vec.recipe.schema import Optimizer
from gemma4vec.training import loop
from gemma4vec.training import prepare_model as prepare
from gemma4vec.training.engine.checkpoint import Progress
from gemma4vec.training.engine.optimizer import MasterAdamW
from gemma4vec.training.loop import train_stage
from gemma4vec.training.prepare_model import prepare_model
from gemma4vec.training.stage import Stage
from gemma4vec.training.tasks.contrastive import ContrastTask


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("base"), "gemma3", layers=2)


@pytest.fixture(autouse=True)
def layers_that_count_as_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "choose_compile", lambda *_, **__: CompileChoice(True, "pretended"))
    monkeypatch.setattr(prepare, "compile_for_training", lambda backbone: setattr(backbone, "compiled", True))


def test_no_whole_micro_batch_is_run_before_memory_is_settled(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = make_stage(base, tmp_path, layout={"tokens_per_forward": 200_000})
    seen: list[int] = []
    forward = Backbone.forward
    monkeypatch.setattr(
        Backbone, "forward", lambda self, layout, **how: seen.append(layout.all_tokens) or forward(self, layout, **how)
    )
    before: list[int] = []
    plan_memory = ContrastTask.plan_memory
    monkeypatch.setattr(ContrastTask, "plan_memory", lambda *given: before.extend(seen) or plan_memory(*given))
    prepare_model(stage)
    assert before and max(before) <= 2048


def failing(stage: Stage, monkeypatch: pytest.MonkeyPatch, number: int, where: str, error: Exception) -> None:
    """Make the compiler give up in the loss of this number, counted from 1."""
    losses: list[Any] = []
    task_loss = stage.task.loss

    def give_up(*_: Any) -> None:
        raise error

    def loss(built: Any, batch: Any) -> Any:
        found = task_loss(built, batch)
        losses.append(found)
        if len(losses) == number:
            give_up() if where == "forward" else found.value.register_hook(give_up)
        return found

    monkeypatch.setattr(stage, "task", WithLoss(stage.task, loss))


@pytest.mark.parametrize(
    ("where", "error"),
    [("forward", FailOnRecompileLimitHit("too many shapes")), ("backward", TorchDynamoException("no such shape"))],
)
def test_a_step_that_cannot_be_compiled_is_begun_anew(
    log_lines: list[str], base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, error: Exception
) -> None:
    """With dropout and half of the step's gradients there already: the losses are those of plain layers all along."""

    def trained(fails: bool) -> Stage:
        stage = make_stage(base, tmp_path, lora={"dropout": 0.2}, batch={"accumulate": 2}, layout={"compile": fails})
        if fails:
            failing(stage, monkeypatch, 4, where, error)
        else:
            stage.built.encoder.backbone.compile_failed = True
        train_stage(stage, seed=0)
        return stage

    plain, late = trained(False), trained(True)
    losses = [[event["loss"] for event in stage.run.events("step")] for stage in (plain, late)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5) and len(losses[0]) == 4
    (told,) = late.run.events("uncompiled")
    assert told["step"] == 2 and str(error) in told["reason"]
    assert sum("layers run uncompiled from step 2 on" in line for line in log_lines) == 1
    assert not late.built.encoder.backbone.compiled


def test_of_several_processes_none_goes_on_alone(base: Path, tmp_path: Path) -> None:
    stage = make_stage(base, tmp_path)
    stage.world.size = 2
    with pytest.raises(WorkError, match=r"^step 2: the reason; start again with stages\.0\.layout\.compile=false$"):
        loop._retry_uncompiled(stage, MasterAdamW(stage.built.trainable(), Optimizer()), Progress(step=1), "the reason")
