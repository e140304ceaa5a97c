"""What the layers of a stage cost, and how that is known: measured as they run, or from uncompiled layers."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import psutil
import torch

from gemma4vec.data.loading.load_rows import TrainingData
from gemma4vec.machine.memory import GB
from gemma4vec.model.backbone.attention import LONGEST_ROW
from gemma4vec.model.backbone.compilation import CompileChoice, use_compile_cache
from gemma4vec.model.backbone.kernel_options import fast_paths
from gemma4vec.recipe import schema
from gemma4vec.training.engine.process_memory import release_memory
from gemma4vec.training.estimate.compiled_share import (
    CompiledShares,
    as_compiled,
    compare_costs,
    load_shares,
    save_shares,
)
from gemma4vec.training.estimate.data import BatchStatistics
from gemma4vec.training.estimate.emulated import as_emulated, is_emulated, slowdown
from gemma4vec.training.estimate.layers import LayerCosts
from gemma4vec.training.estimate.shallow import WholeModel, measure_stage
from gemma4vec.training.estimate.step_record import StepRecord
from gemma4vec.training.estimate.stored_costs import costs_file, load_costs, save_costs, shares_file

logger = logging.getLogger(__name__)

# Word for uncompiled layers that stand for compiled ones: measured without selective checkpointing.
_FOR_COMPILED = "uncompiled, for compiled"
# Memory that torch's compiler takes in a process.
_COMPILER = 0.09 * GB


@dataclass(frozen=True)
class Source:
    """How a stage's time is known.

    Attributes:
        kind: "layers" (measured as the run computes them), "uncompiled layers" (times `share`) or "training" (the steps
            of an earlier run).
        share: what compilation leaves of the layers' time; None: they were measured as they run.
        low, high: range of the share; of a training, quartiles of its steps' time over their mean.
        here: whether the share was measured on this machine.
        run: the training's id.
        steps: number of its steps that were timed.
        emulated: how many times as long as in fp32 products take in the model's float type, which this machine
            emulates: layers were measured in fp32. None: it does not.
    """

    kind: Literal["layers", "uncompiled layers", "training"]
    share: float | None = None
    low: float | None = None
    high: float | None = None
    here: bool = False
    run: str | None = None
    steps: int | None = None
    emulated: float | None = None

    @property
    def sentence(self) -> str:
        """For people; empty where there is nothing to say."""
        if self.emulated is not None:
            return (
                f"from layers measured in fp32, times {self.emulated:.0f}: so slow are products in this type, which is "
                "emulated here; model.dtype=auto takes fp32"
            )
        if self.kind == "layers":
            return ""
        if self.kind == "training":
            return f"as {self.steps} steps of run {self.run} took on this machine"
        where = "measured on this machine" if self.here else f"perhaps {self.low:.2f} to {self.high:.2f}"
        more = "" if self.here else "; --measure-compiled compiles them first, one to three minutes"
        return f"from layers measured uncompiled, times {self.share:.2f} ({where}){more}"


def of_training(record: StepRecord) -> Source:
    """The source of a time that a training measured."""
    mean = record.seconds_per_token
    return Source("training", low=record.low / mean, high=record.high / mean, run=record.run, steps=record.steps)


def costs_of(model: WholeModel, number: int, data: TrainingData, *, compiled: bool | str) -> Path:
    """The file of the stage's measurement."""
    recipe, config = model.recipe, model.config.to_dict()
    stage, rows, device, dtype = recipe.stages[number], data.sources, model.device, model.dtype
    return costs_file(recipe, stage, config, rows, device=device, dtype=dtype, compiled=compiled)


def find_costs(
    model: WholeModel,
    number: int,
    data: TrainingData,
    reading: BatchStatistics,
    choice: CompileChoice,
    *,
    measure_compiled: bool,
) -> tuple[LayerCosts, float, Source]:
    """(costs of layers, memory of the process in bytes, how they are known).

    Compiled layers are measured compiled if that is asked for, or on a GPU, where no share is known. An earlier
    measurement of the same layers is used wherever there is one. Layers in an emulated type are measured in fp32.
    """
    if is_emulated(model.dtype, model.device):
        logger.info(f"{str(model.dtype).removeprefix('torch.')} is emulated here: layers are measured in fp32")
        settings = model.recipe.model.model_copy(update={"dtype": "fp32"})
        fast = replace(model, dtype=torch.float32, recipe=model.recipe.model_copy(update={"model": settings}))
        costs, framework, source = find_costs(fast, number, data, reading, choice, measure_compiled=measure_compiled)
        times = slowdown(model.dtype, model.device)
        return as_emulated(costs, model.dtype, times), framework, replace(source, emulated=times)
    exact = costs_of(model, number, data, compiled=choice.on)
    stored = load_costs(exact)
    if stored is not None:
        return *stored, Source("layers")
    if not choice.on or model.device != "cpu":
        return *_measure(exact, model, number, data, reading, choice), Source("layers")
    stage, inputs = model.recipe.stages[number], input_bytes(model)
    checkpointing = stage.layout.gradient_checkpointing is True
    if measure_compiled:
        measured, framework = _measure(exact, model, number, data, reading, choice)
        if measured.compile.on:  # not where the compiler gave up
            plain, _ = _uncompiled(model, number, data, reading)
            shares = compare_costs(measured, plain, input_bytes=inputs, checkpointing=checkpointing)
            save_shares(_shares_file(model, stage), shares)
        return measured, framework, Source("layers")
    plain, framework = _uncompiled(model, number, data, reading)
    shares = load_shares(_shares_file(model, stage), plain.kinds)
    selective = stage.layout.gradient_checkpointing == "selective"
    costs = as_compiled(
        plain,
        shares,
        choice,
        selective=selective,
        probabilities=_probabilities(model, stage, reading),
        larger=reading.largest_layout / max(1.0, sum(plain.peak_cells.values())),
        input_bytes=inputs,
        checkpointing=checkpointing,
    )
    return costs, framework + _COMPILER, _source(plain, costs, shares)


def _probabilities(model: WholeModel, stage: schema.Stage, reading: BatchStatistics) -> float:
    """Bytes of attention that a cell keeps in one layer, where compiled layers compute it as two matrix products."""
    if not fast_paths(model.device, stage.layout.fast_paths).matmul_attention or reading.columns > LONGEST_ROW:
        return 0.0
    return float(getattr(model.config, "num_attention_heads", 0) * reading.columns * model.dtype.itemsize)


def _source(plain: LayerCosts, costs: LayerCosts, shares: CompiledShares) -> Source:
    before, after = (
        sum(seconds for (kind, _), seconds in one.seconds.items() if kind is not None) for one in (plain, costs)
    )
    return Source("uncompiled layers", after / before if before else 1.0, shares.low, shares.high, shares.here)


def _uncompiled(
    model: WholeModel, number: int, data: TrainingData, reading: BatchStatistics
) -> tuple[LayerCosts, float]:
    """Uncompiled layers that stand for compiled ones, measured now or by an earlier dry run."""
    file = costs_of(model, number, data, compiled=_FOR_COMPILED)
    stage = model.recipe.stages[number]
    if stage.layout.gradient_checkpointing == "selective":  # compiled layers plan themselves what to keep
        layout = stage.layout.model_copy(update={"gradient_checkpointing": False})
        stages = [*model.recipe.stages]
        stages[number] = stage.model_copy(update={"layout": layout})
        model = replace(model, recipe=model.recipe.model_copy(update={"stages": tuple(stages)}))
    choice = CompileChoice(False, "layers are measured uncompiled")
    return load_costs(file) or _measure(file, model, number, data, reading, choice, quick=True)


def _measure(
    file: Path,
    model: WholeModel,
    number: int,
    data: TrainingData,
    reading: BatchStatistics,
    choice: CompileChoice,
    *,
    quick: bool = False,
) -> tuple[LayerCosts, float]:
    """Measure now, and store it."""
    logger.info(f"measuring layers of {model.config.model_type} on this machine" + (", compiled" if choice.on else ""))
    if choice.on:
        use_compile_cache()
    measured = measure_stage(model, number, data, reading, choice, quick=quick)
    release_memory()
    framework = float(psutil.Process().memory_info().rss)
    save_costs(file, measured, framework)
    return measured, framework


def _shares_file(model: WholeModel, stage: schema.Stage) -> Path:
    return shares_file(model.recipe, stage, model.config.to_dict(), device=model.device, dtype=model.dtype)


def input_bytes(model: WholeModel) -> float:
    """Bytes of one cell as it enters a layer."""
    return float(model.config.hidden_size * model.dtype.itemsize)
