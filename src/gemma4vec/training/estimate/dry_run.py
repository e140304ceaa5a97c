"""A dry run: the time and memory of a training, without loading weights.

Parameters are counted on the meta device. Tokens come from batches that are drawn, tokenized and laid out. Seconds and
activations come from a shallow model of the same layers with random weights, trained for a few steps on this machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from gemma4vec.data.loading.load_rows import TrainingData
from gemma4vec.data.pycode.walk import one_look
from gemma4vec.errors import InputError
from gemma4vec.machine.device import choose_device
from gemma4vec.machine.dtype import DtypeChoice, choose_dtype
from gemma4vec.machine.memory import DeviceMemory, device_memory, paused_collections
from gemma4vec.model.backbone.architectures import text_config
from gemma4vec.model.backbone.compilation import CompileChoice, choose_compile
from gemma4vec.model.backbone.kernel_options import fast_paths
from gemma4vec.model.backbone.meta_model import layer_kinds
from gemma4vec.model.encoder.build import EmbeddingModel
from gemma4vec.recipe import schema
from gemma4vec.training.batches.fit_memory import BatchMemory, Fit, fit
from gemma4vec.training.engine.base_files import BaseFiles, base_files
from gemma4vec.training.engine.flops import Flops, layout_flops, trains_inputs
from gemma4vec.training.engine.parameter_count import Parameters, count_parameters
from gemma4vec.training.engine.process_memory import keep_freed_memory, quick_collections
from gemma4vec.training.engine.step_budget import known_steps, steps_of_minutes
from gemma4vec.training.estimate.clusters import ClusterEstimate, estimate_clusters
from gemma4vec.training.estimate.data import BatchStatistics, one_micro_batch, read_batches
from gemma4vec.training.estimate.layer_costs import Source, costs_of, find_costs, input_bytes, of_training
from gemma4vec.training.estimate.layers import Costs, LayerCosts, total_cost
from gemma4vec.training.estimate.memory import Memory, activation_bytes, memory_on_gpu, training_memory
from gemma4vec.training.estimate.shallow import WholeModel, decoder_kinds, stage_task
from gemma4vec.training.estimate.step_record import StepRecord, load_record, record_file
from gemma4vec.training.monitoring.stop_rule import check_stop_rules
from gemma4vec.training.preflight import check_base, check_stages
from gemma4vec.training.tasks.make_task import load_stage_data
from gemma4vec.training.writing.text_vectors import vector_width

# Memory of the export as a multiple of the merged fp32 model: merging, writing and opening it again (measured: 2.9 for
# Gemma 3 270M; see docs/guides/dry-run.md).
_EXPORT_COPIES = 3
# GradCache's second forward as a share of forward and backward: with frozen weights a backward is as long as a forward.
_SECOND_FORWARD = {"frozen": 1 / 2, "full": 1 / 3}


@dataclass(frozen=True)
class StageEstimate:
    """Estimate of one stage; see `BatchStatistics`, `Memory`, `LayerCosts` and `Source` for the parts."""

    name: str
    reading: BatchStatistics
    measured: LayerCosts
    source: Source  # of the time
    compile: CompileChoice
    fit: Fit
    memory: Memory
    gpu_memory: Memory
    flops: Flops
    batches_per_step: int
    tokens_per_step: float
    seconds_per_step: float
    steps: int
    parameters: Parameters  # with what the task trains next to the model
    has_decoder: bool = False
    clusters: ClusterEstimate | None = None

    @property
    def seconds(self) -> float:
        """All steps."""
        return self.steps * self.seconds_per_step


@dataclass(frozen=True)
class Estimate:
    """Estimate of a whole run."""

    recipe: schema.Recipe
    base: BaseFiles
    model_type: str
    layers: int
    device: str
    dtype: DtypeChoice
    parameters: Parameters
    sources: dict[str, dict[str, Any]]
    stages: list[StageEstimate]
    stop_rules: list[str]  # a sentence for each

    @property
    def largest(self) -> StageEstimate:
        """The stage that needs the most memory."""
        return max(self.stages, key=lambda stage: stage.memory.peak)

    @property
    def export_bytes(self) -> float:
        """Main memory at the peak of the export; the trained model is still in memory then (see `Memory`)."""
        last = self.stages[-1].memory
        here = last.weights + last.optimizer if self.device == "cpu" else 0.0
        return last.framework + here + _EXPORT_COPIES * model_bytes(self.parameters)

    @property
    def peak_bytes(self) -> float:
        """Peak of main memory: of the whole run on a CPU, of the export where a GPU trains."""
        return max(self.largest.memory.peak if self.device == "cpu" else 0.0, self.export_bytes)


def estimate(recipe: schema.Recipe, *, measure_compiled: bool = False) -> Estimate:
    """Estimate a run of `recipe` on this machine.

    Args:
        recipe: the recipe.
        measure_compiled: compile the layers, which takes a minute or more, and measure them as the run computes them.

    Raises:
        InputError: whatever a real run would refuse before it loads weights.
    """
    device = choose_device().name
    for stage in recipe.stages:
        vector_width(stage.task)  # refuses an embedder that is not there, before the base is read
    with paused_collections(), base_files(recipe.model.start or recipe.model.base) as base:
        choice = choose_dtype(device, recipe.model.dtype)
        outline = check_base(recipe, base.path, choice.dtype, ids_alone=True)
        config = text_config(base.path, recipe.model.layers)
        loaded = _load(recipe, base.path, outline)  # while the base's small files exist
        parameters = count_parameters(outline)
        kinds = layer_kinds(config, parameters.first_trained)
        model = WholeModel(recipe, config, choice.dtype, device, outline, parameters, kinds)
    rules = check_stop_rules(recipe, [data.dev_suite for data in loaded])
    with quick_collections():
        stages = [_estimate_stage(model, number, data, measure_compiled) for number, data in enumerate(loaded)]
    return Estimate(
        recipe=recipe,
        base=base,
        model_type=str(config.model_type),
        layers=len(model.kinds),
        device=device,
        dtype=choice,
        parameters=model.parameters,
        sources={name: facts for data in loaded for name, facts in data.sources.items()},
        stages=stages,
        stop_rules=[sentence for sentence in rules if sentence],
    )


def _load(recipe: schema.Recipe, base: Path, outline: EmbeddingModel) -> list[TrainingData]:
    """The checked rows of all stages. Sources that are not built yet are sampled, unless a sample fails the checks."""
    sample = all(stage.evaluation.stop is None for stage in recipe.stages)  # a stop rule reads the built dev suite
    while True:
        loaded: list[TrainingData] = []
        try:
            with one_look():
                for stage in recipe.stages:
                    loaded.append(load_stage_data(stage, sample=sample))
            check_stages(recipe, base, loaded, outline)
            return loaded
        except InputError:
            if not sample:
                raise
            sample = False  # what is built decides


def _estimate_stage(
    model: WholeModel, number: int, data: TrainingData, measure_compiled: bool = False
) -> StageEstimate:
    stage = model.recipe.stages[number]
    task = stage_task(model, stage, data, number, model.whole)
    decoder = getattr(task, "decoder", None)
    parameters = count_parameters(model.whole, decoder, task.extra_parameters())
    model = replace(model, parameters=parameters, decoder_kinds=decoder_kinds(decoder) if decoder is not None else [])
    reading = read_batches(task, stage.layout)
    steps = known_steps(stage.budget, task.rows_per_batch * stage.batch.accumulate)
    compiled = choose_compile(
        stage.layout.compile, steps=steps, minutes=stage.budget.minutes, least_steps=stage.budget.least_steps
    )
    keep_freed_memory(fast_paths(model.device, stage.layout.fast_paths).keep_freed_memory)
    measured, framework, source = find_costs(model, number, data, reading, compiled, measure_compiled=measure_compiled)
    memory, gpu_memory = _memory(model, stage, reading, measured, framework)
    found = _fit(model, stage, reading, memory)
    if found.cached:
        micro_batch = one_micro_batch(reading, found.tokens_per_forward)
        memory, gpu_memory = _memory(model, stage, micro_batch, measured, framework)
    record = _training_record(costs_of(model, number, data, compiled=measured.compile.on), found)
    if record is not None and record.peak_bytes is not None:
        memory = memory.scaled_to(record.peak_bytes)
    trainable = sum(model.parameters.trainable.values())
    update = measured.optimizer_seconds * trainable / max(1, measured.optimizer_parameters)
    accumulate = stage.batch.accumulate
    passes = 1.0 + (_SECOND_FORWARD[model.recipe.model.train] if found.cached else 0.0)
    computing = passes * total_cost(measured.seconds, [*model.kinds, *model.decoder_kinds], reading.cells)
    seconds = accumulate * (computing + reading.seconds) + update
    flops = layout_flops(
        model.whole.encoder.backbone,
        # A decoder's layers count as the encoder's.
        (reading.all_cells - reading.decoder_cells * (1 - len(model.decoder_kinds) / len(model.kinds))) * accumulate,
        reading.columns,
        model.parameters.first_trained,
        trains_below=trains_inputs(model.whole),
    )
    tokens = accumulate * reading.tokens
    if record is not None:
        seconds, source = tokens * record.seconds_per_token, of_training(record)
    steps = steps_of(stage, tokens, seconds)
    forward = (_SECOND_FORWARD[model.recipe.model.train] * computing / passes + reading.seconds) / stage.batch.rows
    return StageEstimate(
        name=stage.name,
        reading=reading,
        measured=measured,
        source=source,
        compile=measured.compile,
        fit=found,
        memory=memory,
        gpu_memory=gpu_memory,
        flops=flops,
        batches_per_step=accumulate,
        tokens_per_step=tokens,
        seconds_per_step=seconds,
        steps=steps,
        parameters=model.parameters,
        has_decoder=decoder is not None,
        clusters=estimate_clusters(stage, data, steps, forward),
    )


def _training_record(costs: Path, found: Fit) -> StepRecord | None:
    """What an earlier training of these layers, rows and batches measured, if it computed them in the same way."""
    record = load_record(record_file(costs))
    if record is None:
        return None
    same = {"grad_cache": found.cached, "tokens_per_forward": found.tokens_per_forward}
    return record if all(same[key] == value for key, value in record.fields.items() if key in same) else None


def _fit(model: WholeModel, stage: schema.Stage, reading: BatchStatistics, memory: Memory) -> Fit:
    """What the run will do about memory, if as much is free as now."""
    cells, parameters = sum(reading.largest_cells.values()), model.parameters
    needs = BatchMemory(
        per_cell=memory.activations / cells,
        cells=cells,
        largest=float(reading.largest_layout),
        row=min(stage.layout.row_tokens, reading.largest_layout),
        fixed=float(parameters.trainable_bytes) + memory.optimizer,
    )
    device = device_memory(torch.device(model.device))
    left = DeviceMemory(max(0.0, device.free - memory.weights), device.total)  # the weights are not loaded yet
    return fit(stage.layout, needs, left, can_cache=isinstance(stage.task, schema.Contrast))


def _memory(
    model: WholeModel, stage: schema.Stage, reading: BatchStatistics, measured: LayerCosts, framework: float
) -> tuple[Memory, Memory]:
    """Memory on this machine and on a GPU, where rows stay in main memory and other kernels need other buffers."""
    inputs = input_bytes(model)
    checkpointing = stage.layout.gradient_checkpointing is True

    def training(kept: Costs, buffers: float | None) -> Memory:
        return training_memory(
            model.parameters,
            kept,
            [*model.kinds, *model.decoder_kinds],
            reading,
            buffers=buffers,
            input_bytes=inputs,
            checkpointing=checkpointing,
            accumulate=stage.batch.accumulate,
            framework=framework,
        )

    buffers = None
    if measured.peak_bytes is not None:
        shallow = activation_bytes(measured.kept_bytes, measured.kinds, measured.peak_cells, inputs, checkpointing)
        buffers = max(0.0, measured.peak_bytes - shallow)
    here, gpu = training(measured.kept_bytes, buffers), training(measured.eager_kept_bytes, None)
    return here, memory_on_gpu(gpu, min(here.activations, gpu.activations))


def steps_of(stage: schema.Stage, tokens_per_step: float, seconds_per_step: float) -> int:
    """Optimizer steps of a stage's budget, as `training.engine.step_budget` will count them."""
    budget = stage.budget
    if budget.steps is not None:
        return budget.steps
    if budget.rows is not None:
        return max(1, round(budget.rows / (stage.batch.rows * stage.batch.accumulate)))
    if budget.tokens is not None:
        return max(1, round(budget.tokens / tokens_per_step))
    assert budget.minutes is not None
    return max(steps_of_minutes(budget.minutes, seconds_per_step), budget.least_steps or 0)


def checkpoint_bytes(parameters: Sequence[Parameters], stages: Sequence[schema.Stage]) -> int:
    """Largest size of a run's checkpoints at a time: weights and two moments of each copy, in fp32.

    `parameters` are those of each stage.
    """
    copies = [2 if stage.evaluation.every_steps is not None else 1 for stage in stages]
    return sum(12 * count * sum(own.trainable.values()) for own, count in zip(parameters, copies, strict=True))


def model_bytes(parameters: Parameters) -> int:
    """Size of the exported model in bytes: merged, fp32."""
    return 4 * (sum(parameters.total.values()) - parameters.total.get("adapters", 0))
