"""A shallow model of the recipe's layers with random weights, and what its layers cost when it trains."""

from dataclasses import dataclass, field
from typing import Any

import torch

from gemma4vec.data.loading.load_rows import TrainingData
from gemma4vec.model.backbone.compilation import CompileChoice
from gemma4vec.model.backbone.kernel_options import fast_paths
from gemma4vec.model.backbone.lm_head import LanguageModelHead
from gemma4vec.model.backbone.meta_model import (
    Kind,
    empty_backbone,
    fold_token_ids,
    repeat_states,
    representative_layers,
    shallow_config,
)
from gemma4vec.model.denoiser.decoder import Decoder
from gemma4vec.model.encoder.build import EmbeddingModel, assemble
from gemma4vec.recipe import schema
from gemma4vec.recipe.terms import Nce
from gemma4vec.training.engine.optimizer import MasterAdamW
from gemma4vec.training.engine.parameter_count import Parameters
from gemma4vec.training.engine.task import Task
from gemma4vec.training.estimate.data import BatchStatistics
from gemma4vec.training.estimate.layers import LayerCosts, measure_layers
from gemma4vec.training.estimate.sampled_head import SampledHead, Skipped
from gemma4vec.training.tasks.make_task import data_seed, make_task
from gemma4vec.training.terms import TERMS
from gemma4vec.training.writing.text_vectors import vector_width

# Cells of a measured step: a micro-batch of the shipped recipes, and enough to keep the cores of a small machine busy.
_MEASURED_CELLS = {"cpu": 4096, "cuda": 8192}
# Where a share turns uncompiled layers into compiled ones, less is exact enough.
_QUICK_CELLS = 2048


@dataclass(frozen=True)
class WholeModel:
    """Settings and parts that all stages share."""

    recipe: schema.Recipe
    config: Any
    dtype: torch.dtype
    device: str
    whole: EmbeddingModel  # on the meta device
    parameters: Parameters  # with what the stage's task trains next to the model
    kinds: list[Kind]
    decoder_kinds: list[Kind] = field(default_factory=list)


def shallow_model(model: WholeModel) -> tuple[EmbeddingModel, list[Kind]]:
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


def measure_stage(
    model: WholeModel,
    number: int,
    data: TrainingData,
    reading: BatchStatistics,
    compiled: CompileChoice,
    *,
    quick: bool = False,
) -> LayerCosts:
    """Train the shallow model on as many rows as fill `_MEASURED_CELLS`; the caller releases its memory.

    Layers run as `compiled` says, whatever the run will do. `quick` takes fewer cells and steps.
    """
    stage = model.recipe.stages[number]
    cells = _QUICK_CELLS if quick else _MEASURED_CELLS.get(model.device, 4096)
    rows = max(2, round(stage.batch.rows * min(1.0, cells / reading.all_cells)))
    if quick and isinstance(stage.task, schema.Contrast) and stage.task.hard_negatives > 1:
        # Two rows with all of their hard negatives may be many more cells; a cell costs the same in each text.
        texts = cells / reading.all_cells * stage.batch.rows / rows * (2 + stage.task.hard_negatives)
        fewer = max(1, min(stage.task.hard_negatives, round(texts) - 2))
        stage = stage.model_copy(update={"task": stage.task.model_copy(update={"hard_negatives": fewer})})
    plain = stage.layout.model_copy(update={"grad_cache": False})  # its cost is derived from the plain path's
    smaller = stage.model_copy(update={"batch": stage.batch.model_copy(update={"rows": rows}), "layout": plain})
    built, kinds = shallow_model(model)
    built.encoder.backbone.fast = fast_paths(model.device, stage.layout.fast_paths)
    skipped = Skipped()
    task = stage_task(model, smaller, data, number, built, skipped if model.device == "cpu" else None)
    decoder = getattr(task, "decoder", None)
    return measure_layers(
        built,
        task,
        MasterAdamW(built.trainable(), stage.optimizer, task.extra_parameters()),
        [*kinds, *(decoder_kinds(decoder) if decoder is not None else [])],
        decoder=decoder,
        compile=compiled,
        checkpointing=stage.layout.gradient_checkpointing,
        quick=quick,
        skipped=skipped,
    )


def stage_task(
    model: WholeModel,
    stage: schema.Stage,
    data: TrainingData,
    number: int,
    built: EmbeddingModel,
    skipped: Skipped | None = None,
) -> Task:
    """The task of a stage, without its teachers and with random vectors; with `skipped`, its head samples tokens."""
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
        lambda: _head(model, built, skipped),
        max_tokens=model.recipe.model.max_tokens,
        seed=seed,
        start=model.recipe.model.start,
        pretokenize=False,
        vector_width=vector_width(stage.task),
    )


def _head(model: WholeModel, built: EmbeddingModel, skipped: Skipped | None) -> LanguageModelHead:
    """A head of the real size where layers are measured, since reading its matrix takes the time; where nothing is
    computed, one that takes no memory."""
    backbone = built.encoder.backbone
    rows, softcap = int(model.config.vocab_size), getattr(model.config, "final_logit_softcapping", None)
    if built is model.whole:
        row_1D = torch.zeros(1, backbone.hidden_size, dtype=model.dtype, device=backbone.device)
        return LanguageModelHead(row_1D.expand(rows, -1), softcap)
    weight_VD = torch.full((rows, backbone.hidden_size), 0.01, dtype=model.dtype, device=backbone.device)
    return LanguageModelHead(weight_VD, softcap) if skipped is None else SampledHead(weight_VD, softcap, skipped)


def decoder_kinds(decoder: Decoder) -> list[Kind]:
    """Kinds of a decoder's layers: a gradient passes through each, to the encoder."""
    return [("decoder", kind, True) for kind in decoder.kinds]
