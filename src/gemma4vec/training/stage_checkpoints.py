"""Where a stage starts from, and when its state is written: its own checkpoints, and those of the previous stage."""

import logging
from typing import Any

from gemma4vec.reading.json_values import read_json
from gemma4vec.training.engine.checkpoint import (
    Progress,
    latest_checkpoint,
    load_checkpoint,
    random_state,
    read_progress,
    save_checkpoint,
    trained_weights,
)
from gemma4vec.training.engine.optimizer import MasterAdamW
from gemma4vec.training.engine.step_budget import StepBudget, step_budget
from gemma4vec.training.stage import Stage

logger = logging.getLogger(__name__)


def load_finished(stage: Stage) -> Progress | None:
    """Load the weights of a stage that an earlier process finished, for the next stage; None: it is not finished."""
    checkpoint = latest_checkpoint(stage.folder)
    if checkpoint is None or not any(e["stage"] == stage.number for e in stage.run.events("stage_finished")):
        return None
    weights = trained_weights(checkpoint)
    stage.built.load_trained(weights)
    if stage.quantization is not None:
        stage.quantization.refresh(weights)
    return read_progress(checkpoint)


def load_latest(stage: Stage, optimizer: MasterAdamW) -> Progress:
    """Load the last checkpoint of the stage, or else the weights that the previous stage ended with.

    Those are read from its checkpoint at full precision; the model itself holds them rounded.
    """
    checkpoint = latest_checkpoint(stage.folder)
    if checkpoint is None:
        previous = latest_checkpoint(stage.previous_checkpoints) if stage.previous_checkpoints else None
        if previous is not None:
            optimizer.load_weights(trained_weights(previous))
        return Progress(stage=stage.number)
    progress = read_progress(checkpoint)
    load_checkpoint(checkpoint, optimizer, stage.world.rank)
    stage.run.event("resumed", stage=stage.number, step=progress.step)
    logger.info(f"resuming at step {progress.step}")
    return progress


def stored_budget(stage: Stage) -> StepBudget:
    """The stage's budget in optimizer steps. If a killed run already measured it, it is read from `budget.json`."""
    file = stage.folder / "budget.json"
    known: dict[str, Any] | None = None
    if file.exists():
        known = read_json(file, "the budget", "restore it, or start a new run")
    rows_per_step = stage.task.rows_per_batch * stage.settings.batch.accumulate
    return step_budget(stage.settings, rows_per_step, stage.folder if stage.world.first else None, known)


def save_progress(stage: Stage, optimizer: MasterAdamW, progress: Progress, keep_as: str | None = None) -> None:
    """Write a checkpoint, with the random state of every process."""
    random = stage.world.gather(random_state())
    if stage.world.first:
        save_checkpoint(stage.folder, progress, optimizer, keep_as, random)
    stage.world.wait()


def save_interrupted(stage: Stage, optimizer: MasterAdamW, progress: Progress) -> None:
    """Write a checkpoint after Ctrl-C if weights and optimizer are both at the same whole step.

    Ctrl-C can come in the middle of an update, and such a state is not worth saving. Several processes save nothing:
    one cannot reach the others any more, so the run continues from its last checkpoint.
    """
    if stage.world.size > 1:
        return
    checkpoint = latest_checkpoint(stage.folder)
    steps = {int(entry["step"]) for entry in optimizer.state()["state"].values()}
    if steps == {progress.step} and (checkpoint is None or read_progress(checkpoint).step < progress.step):
        save_checkpoint(stage.folder, progress, optimizer, random=[stage.random] if stage.random else [])
