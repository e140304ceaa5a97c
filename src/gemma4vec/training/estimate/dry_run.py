"""A dry run: the time and memory of a training, without loading weights.

Parameters are counted on the meta device. Tokens come from batches that are drawn, tokenized and laid out. Seconds and
activations come from a shallow model of the same layers with random weights, trained for a few steps on this machine.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import psutil
import torch

from gemma4vec.data.loading.load_rows import TrainingData
from gemma4vec.machine.device import choose_device
from gemma4vec.machine.dtype import DtypeChoice, choose_dtype
from gemma4vec.machine.memory import DeviceMemory, device_memory
from gemma4vec.model.backbone.architectures import text_config
from gemma4vec.model.backbone.compilation import CompileChoice, choose_compile, use_compile_cache
from gemma4vec.model.backbone.kernel_options import fast_paths
from gemma4vec.model.backbone.lm_head import LanguageModelHead
from gemma4vec.model.backbone.meta_model import (
    Kind,
    empty_backbone,
    fold_token_ids,
    layer_kinds,
    repeat_states,
    representative_layers,
    shallow_config,
)
from gemma4vec.model.denoiser.decoder import Decoder
from gemma4vec.model.encoder.build import EmbeddingModel, assemble
from gemma4vec.recipe import schema
from gemma4vec.recipe.terms import Nce
from gemma4vec.training.batches.fit_memory import BatchMemory, Fit, fit
from gemma4vec.training.engine.base_files import BaseFiles, base_files
from gemma4vec.training.engine.flops import Flops, layout_flops, trains_inputs
from gemma4vec.training.engine.optimizer import MasterAdamW
from gemma4vec.training.engine.parameter_count import Parameters, count_parameters
from gemma4vec.training.engine.process_memory import keep_freed_memory, quick_collections, release_memory
from gemma4vec.training.engine.step_budget import known_steps
from gemma4vec.training.engine.task import Task
from gemma4vec.training.estimate.data import BatchStatistics, one_micro_batch, read_batches
from gemma4vec.training.estimate.layers import Costs, LayerCosts, measure_layers, total_cost
from gemma4vec.training.estimate.memory import Memory, activation_bytes, memory_on_gpu, training_memory
from gemma4vec.training.estimate.stored_costs import costs_file, load_costs, save_costs
from gemma4vec.training.monitoring.stop_rule import check_stop_rules
from gemma4vec.training.preflight import check_base, check_stages
from gemma4vec.training.tasks.make_task import data_seed, load_stage_data, make_task
from gemma4vec.training.terms import TERMS
from gemma4vec.training.writing.text_vectors import vector_width

logger = logging.getLogger(__name__)

# Cells of a measured step: a micro-batch of the shipped recipes, and enough to keep the cores of a small machine busy.
_MEASURED_CELLS = {"cpu": 4096, "cuda": 8192}
# Memory of the export as a multiple of the merged fp32 model: merging, writing and opening it again (measured: 2.9 for
# Gemma 3 270M; see docs/guides/dry-run.md).
_EXPORT_COPIES = 3
# GradCache's second forward as a share of forward and backward: with frozen weights a backward is as long as a forward.
_SECOND_FORWARD = {"frozen": 1 / 2, "full": 1 / 3}


@dataclass(frozen=True)
class StageEstimate:
    """Estimate of one stage; see `BatchStatistics`, `Memory` and `LayerCosts` for the parts."""

    name: str
    reading: BatchStatistics
    measured: LayerCosts
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


@dataclass(frozen=True)
class _Model:
    """Settings and parts that all stages share."""

    recipe: schema.Recipe
    config: Any
    dtype: torch.dtype
    device: str
    whole: EmbeddingModel  # on the meta device
    parameters: Parameters  # with what the stage's task trains next to the model
    kinds: list[Kind]
    decoder_kinds: list[Kind] = field(default_factory=list)


def estimate(recipe: schema.Recipe) -> Estimate:
    """Estimate a run of `recipe` on this machine.

    Raises:
        InputError: whatever a real run would refuse before it loads weights.
    """
    device = choose_device().name
    with base_files(recipe.model.start or recipe.model.base) as base:
        choice = choose_dtype(device, recipe.model.dtype)
        outline = check_base(recipe, base.path, choice.dtype)
        config = text_config(base.path)
        loaded = [load_stage_data(stage) for stage in recipe.stages]
        check_stages(recipe, base.path, loaded, outline)  # while the base's small files exist
        parameters = count_parameters(outline)
        kinds = layer_kinds(config, parameters.first_trained)
        model = _Model(recipe, config, choice.dtype, device, outline, parameters, kinds)
    rules = check_stop_rules(recipe, [data.dev_suite for data in loaded])
    with quick_collections():
        stages = [_estimate_stage(model, number, data) for number, data in enumerate(loaded)]
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


def _shallow(model: _Model) -> tuple[EmbeddingModel, list[Kind]]:
    """A model of a few layers with random weights, and the kinds of its layers."""
    chosen = representative_layers(model.kinds)
    kinds = [model.kinds[i] for i in chosen]
    settings = model.recipe.model
    backbone = empty_backbone(
        shallow_config(model.config, chosen),
        causal=settings.attention == "causal",
        dtype=model.dtype,
        device=model.device,
        allow_untested=settings.allow_untested,
    )
    fold_token_ids(backbone.model)
    repeat_states(backbone, len(model.kinds))
    if settings.lora is not None and settings.lora.last_layers is not None:
        trained = sum(kind[-1] for kind in kinds)
        settings = settings.model_copy(update={"lora": settings.lora.model_copy(update={"last_layers": trained})})
    built = assemble(settings, backbone, model.whole.tokenizer, seed=model.recipe.seed, layers=len(model.kinds))
    return built, kinds


def _estimate_stage(model: _Model, number: int, data: TrainingData) -> StageEstimate:
    stage = model.recipe.stages[number]
    task = _task(model, stage, data, number, model.whole)
    decoder = getattr(task, "decoder", None)
    parameters = count_parameters(model.whole, decoder, task.extra_parameters())
    model = replace(model, parameters=parameters, decoder_kinds=_decoder_kinds(decoder) if decoder is not None else [])
    reading = read_batches(task, stage.layout)
    steps = known_steps(stage.budget, task.rows_per_batch * stage.batch.accumulate)
    compiled = choose_compile(stage.layout.compile, steps=steps, minutes=stage.budget.minutes)
    use_compile_cache()
    keep_freed_memory(fast_paths(model.device, stage.layout.fast_paths).keep_freed_memory)
    measured, framework = _measure_once(model, number, data, reading, compiled)
    memory, gpu_memory = _memory(model, stage, reading, measured, framework)
    found = _fit(model, stage, reading, memory)
    if found.cached:
        micro_batch = one_micro_batch(reading, found.tokens_per_forward)
        memory, gpu_memory = _memory(model, stage, micro_batch, measured, framework)
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
    return StageEstimate(
        name=stage.name,
        reading=reading,
        measured=measured,
        compile=measured.compile,
        fit=found,
        memory=memory,
        gpu_memory=gpu_memory,
        flops=flops,
        batches_per_step=accumulate,
        tokens_per_step=tokens,
        seconds_per_step=seconds,
        steps=steps_of(stage, tokens, seconds),
        parameters=model.parameters,
        has_decoder=decoder is not None,
    )


def _decoder_kinds(decoder: Decoder) -> list[Kind]:
    """Kinds of a decoder's layers: a gradient passes through each, to the encoder."""
    return [("decoder", kind, True) for kind in decoder.kinds]


def _fit(model: _Model, stage: schema.Stage, reading: BatchStatistics, memory: Memory) -> Fit:
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


def _measure_once(
    model: _Model, number: int, data: TrainingData, reading: BatchStatistics, compiled: CompileChoice
) -> tuple[LayerCosts, float]:
    """(costs of layers, memory of this process in bytes): measured now, or by an earlier dry run of the same layers."""
    file = costs_file(
        model.recipe,
        model.recipe.stages[number],
        model.config.to_dict(),
        data.sources,
        device=model.device,
        dtype=model.dtype,
        compiled=compiled.on,
    )
    stored = load_costs(file)
    if stored is not None:
        return stored
    logger.info(
        f"measuring layers of {model.config.model_type} on this machine" + (", compiled" if compiled.on else "")
    )
    measured = _measure(model, number, data, reading, compiled)
    release_memory()
    framework = float(psutil.Process().memory_info().rss)
    save_costs(file, measured, framework)
    return measured, framework


def _measure(
    model: _Model, number: int, data: TrainingData, reading: BatchStatistics, compiled: CompileChoice
) -> LayerCosts:
    """Train the shallow model on as many rows as fill `_MEASURED_CELLS`; the caller releases its memory."""
    stage = model.recipe.stages[number]
    share = min(1.0, _MEASURED_CELLS.get(model.device, 4096) / reading.all_cells)
    rows = max(2, round(stage.batch.rows * share))
    plain = stage.layout.model_copy(update={"grad_cache": False})  # its cost is derived from the plain path's
    smaller = stage.model_copy(update={"batch": stage.batch.model_copy(update={"rows": rows}), "layout": plain})
    built, kinds = _shallow(model)
    built.encoder.backbone.fast = fast_paths(model.device, stage.layout.fast_paths)
    task = _task(model, smaller, data, number, built)
    decoder = getattr(task, "decoder", None)
    return measure_layers(
        built,
        task,
        MasterAdamW(built.trainable(), stage.optimizer, task.extra_parameters()),
        [*kinds, *(_decoder_kinds(decoder) if decoder is not None else [])],
        decoder=decoder,
        compile=compiled,
        checkpointing=stage.layout.gradient_checkpointing,
    )


def _task(model: _Model, stage: schema.Stage, data: TrainingData, number: int, built: EmbeddingModel) -> Task:
    seed = data_seed(model.recipe, number)
    if isinstance(stage.task, schema.Contrast):  # teachers are not opened: their cost is small
        terms = tuple(term for term in stage.task.terms if TERMS[term.kind].teacher(term) is None)
        kept = stage.task.model_copy(update={"terms": terms or (Nce(),)})
        stage = stage.model_copy(update={"task": kept})
    if isinstance(stage.task, schema.Ul2) and built is not model.whole:  # the shallow model has each kind of layer once
        whole = stage.task.decoder.model_copy(update={"layers": "all"})
        stage = stage.model_copy(update={"task": stage.task.model_copy(update={"decoder": whole})})
    return make_task(
        stage,
        data,
        built,
        lambda: _head(model, built),
        max_tokens=model.recipe.model.max_tokens,
        seed=seed,
        start=model.recipe.model.start,
        pretokenize=False,
        vector_width=vector_width(stage.task),
    )


def _head(model: _Model, built: EmbeddingModel) -> LanguageModelHead:
    """A head of the real size where layers are measured, since reading its matrix takes the time; where nothing is
    computed, one that takes no memory."""
    backbone = built.encoder.backbone
    rows, softcap = int(model.config.vocab_size), getattr(model.config, "final_logit_softcapping", None)
    if built is model.whole:
        row_1D = torch.zeros(1, backbone.hidden_size, dtype=model.dtype, device=backbone.device)
        return LanguageModelHead(row_1D.expand(rows, -1), softcap)
    return LanguageModelHead(
        torch.full((rows, backbone.hidden_size), 0.01, dtype=model.dtype, device=backbone.device), softcap
    )


def _memory(
    model: _Model, stage: schema.Stage, reading: BatchStatistics, measured: LayerCosts, framework: float
) -> tuple[Memory, Memory]:
    """Memory on this machine and on a GPU, where rows stay in main memory and other kernels need other buffers."""
    inputs = float(model.config.hidden_size * torch.empty(0, dtype=model.dtype).element_size())
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
    return 1 + round(budget.minutes * 60.0 / seconds_per_step)


def checkpoint_bytes(parameters: Sequence[Parameters], stages: Sequence[schema.Stage]) -> int:
    """Largest size of a run's checkpoints at a time: weights and two moments of each copy, in fp32.

    `parameters` are those of each stage.
    """
    copies = [2 if stage.evaluation.every_steps is not None else 1 for stage in stages]
    return sum(12 * count * sum(own.trainable.values()) for own, count in zip(parameters, copies, strict=True))


def model_bytes(parameters: Parameters) -> int:
    """Size of the exported model in bytes: merged, fp32."""
    return 4 * (sum(parameters.total.values()) - parameters.total.get("adapters", 0))
