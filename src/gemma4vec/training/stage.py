"""A stage while it is trained: what the loop reads, and the two things that it changes."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.model.adapters.fake_quantize import FakeQuantization
from gemma4vec.model.encoder.build import EmbeddingModel
from gemma4vec.recipe import schema
from gemma4vec.training.batches.row_clusters import StageClusters
from gemma4vec.training.engine.distributed import World
from gemma4vec.training.engine.step_bar import StepBar
from gemma4vec.training.engine.task import Task
from gemma4vec.training.monitoring.stop_rule import StopRuleMonitor
from gemma4vec.training.processes.stop_signals import StopSignals

logger = logging.getLogger(__name__)

# Returns a score (higher is better) and the fields of the evaluation's event.
Evaluate = Callable[[], tuple[float, dict[str, Any]]]


def quantize_stage(settings: schema.Stage, built: EmbeddingModel, folder: Path) -> FakeQuantization | None:
    """Let a model read quantized weights if the stage trains them; `folder` is where its weights were loaded from.

    Raises:
        InputError: the scheme does not fit a matrix.
    """
    if settings.quantize is None:
        return None
    encoder = built.encoder
    if encoder.backbone.compiled:  # in an earlier stage: the layers become others
        encoder.backbone.uncompile_layers()
        torch.compiler.reset()
    found = FakeQuantization(encoder.backbone, encoder.head_layers, settings.quantize.scheme, folder)
    logger.info(f"training with weights quantized by {settings.quantize.scheme}: {len(found.grids)} matrices")
    return found


@dataclass
class Stage:
    """A stage that is being trained.

    Attributes:
        built: the model; training changes its weights.
        evaluate: evaluates the model as it is now; None: no evaluation during training.
        previous_checkpoints: folder of the previous stage's checkpoints; None for the first stage.
        random: the state of torch's random generators after the last whole step.
        world: the processes that train this stage together.
        stop_rule: ends the stage before its budget is spent.
        signals: what asks the training to stop at a step boundary.
        quantization: the model's quantized weights; None: it is trained as it is.
        clusters: makes the groups of near rows; None: the rows have their own, or none.
    """

    number: int
    settings: schema.Stage
    task: Task
    built: EmbeddingModel
    run: RunFolder
    evaluate: Evaluate | None
    bar: StepBar
    previous_checkpoints: Path | None = None
    random: dict[str, Any] | None = None
    world: World = field(default_factory=World)
    stop_rule: StopRuleMonitor | None = None
    signals: StopSignals = field(default_factory=StopSignals)
    quantization: FakeQuantization | None = None
    clusters: StageClusters | None = None

    @property
    def folder(self) -> Path:
        """Folder of this stage's checkpoints."""
        return self.run.checkpoints / f"{self.number}-{self.settings.name}"
