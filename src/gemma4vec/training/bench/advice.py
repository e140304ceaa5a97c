"""Switches of a recipe that would make it train faster, with the factor that each promises.

Factors are counted, not measured: operations of the same batches laid out in another way. A factor of 1.2 means a fifth
more tokens a second, if time is proportional to operations.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from gemma4vec.model.backbone.compilation import choose_compile
from gemma4vec.model.encoder.build import EmbeddingModel
from gemma4vec.model.packing.packed_batch import PackedBatch
from gemma4vec.recipe import schema
from gemma4vec.training.batches.micro_batches import lay_out_texts, texts_of
from gemma4vec.training.engine.flops import layout_flops, trains_inputs
from gemma4vec.training.terms.teachers import teachers_of

_WORTH_SAYING = 1.03
_ROWS = (64, 128, 256, 512, 1024)
_WAITING = 0.05
_GPU_TOKENS = 16_384


@dataclass(frozen=True)
class Advice:
    """One switch: what to write, the promised factor (None: it cannot be counted), and why."""

    change: str
    factor: float | None
    why: str


@dataclass(frozen=True)
class Observations:
    """Measurements of the recipe as it is.

    Attributes:
        groups: layouts of some batches; each list has the texts of one group.
        first_trained: number of the lowest trained layer.
        compiled: whether layers ran compiled.
        shared: whether prefixes that texts share are computed once.
        shareable: whether they could be.
        waited: share of the time spent waiting for batches.
        element_wise: share of the time spent on element-wise work.
        device: kind of device.
        dtype: of the base.
        faster_dtype: the dtype that this machine computes fastest.
    """

    groups: Sequence[Sequence[PackedBatch]]
    first_trained: int
    compiled: bool
    shared: bool
    shareable: bool
    waited: float
    element_wise: float
    device: str
    dtype: str
    faster_dtype: str


def advise(recipe: schema.Recipe, number: int, built: EmbeddingModel, seen: Observations) -> list[Advice]:
    """Switches worth trying, the largest promised factor first."""
    stage, key = recipe.stages[number], f"stages.{number}."
    layout = stage.layout
    now = operations(built, seen.groups, seen.first_trained)
    found = _layouts(layout, key, built, seen, now)
    if seen.dtype != seen.faster_dtype:
        found.append(Advice("model.dtype=auto", None, f"this machine computes {seen.faster_dtype} faster"))
    if not seen.compiled and layout.compile is False and choose_compile("auto", steps=None, minutes=None).on:
        share = f"element-wise work takes {seen.element_wise:.0%}; compiled it is fused"
        found.append(Advice(f"{key}layout.compile=true", None, share))
    found += _second_passes(layout, key, built, seen, now)
    if seen.waited > _WAITING and stage.batch.tokenize == "each_time" and _can_pretokenize(stage):
        why = f"batches are waited for {seen.waited:.0%} of the time"
        found.append(Advice(f"{key}batch.tokenize=once", 1 / (1 - seen.waited), why))
    cut = any(len(group) > 1 for group in seen.groups)
    if seen.device == "cuda" and cut and layout.tokens_per_forward < _GPU_TOKENS:
        why = "small micro-batches leave a GPU idle; larger ones need more memory"
        found.append(Advice(f"{key}layout.tokens_per_forward={_GPU_TOKENS}", None, why))
    found += _upper_layers(recipe, built, seen, now)
    return sorted(found, key=lambda one: -(one.factor or 1.0))


def _can_pretokenize(stage: schema.Stage) -> bool:
    """Whether rows can be stored as tokens: a teacher needs their texts."""
    return isinstance(stage.task, schema.Contrast) and not any(teachers_of(stage.task))


def _second_passes(
    layout: schema.Layout, key: str, built: EmbeddingModel, seen: Observations, now: float
) -> list[Advice]:
    """Switches that avoid a second computation: of checkpointed layers, or of the whole forward pass (GradCache)."""
    layers = len(built.encoder.backbone.layers)
    forward = operations(built, seen.groups, layers)
    again = {}
    if layout.gradient_checkpointing is True:
        upper = 1.0 if trains_inputs(built) else (layers - seen.first_trained) / layers
        why = "the forward pass is computed twice; train --dry-run tells whether memory is enough without"
        again["gradient_checkpointing=false"] = (forward * upper, why)
    if layout.grad_cache is True:
        again["grad_cache=auto"] = (forward, "each text is encoded twice; auto does so only where memory is short")
    spent = now + sum(saved for saved, _ in again.values())
    return [Advice(f"{key}layout.{change}", spent / (spent - saved), why) for change, (saved, why) in again.items()]


def operations(built: EmbeddingModel, groups: Sequence[Sequence[PackedBatch]], first_trained: int) -> float:
    """Operations of layouts as they are computed: with padding, and attention over whole rows."""
    backbone = built.encoder.backbone
    total = 0.0
    for one in (layout for group in groups for layout in group):
        rows, columns = one.input_ids_RC.shape
        total += layout_flops(backbone, rows * columns, columns + one.shared, first_trained).total
    return total


def _layouts(layout: schema.Layout, key: str, built: EmbeddingModel, seen: Observations, now: float) -> list[Advice]:
    """The same texts in other layouts."""
    texts = [texts_of(group) for group in seen.groups]

    def factor(share: bool, **changes: object) -> float:
        other = layout.model_copy(update=changes)
        groups = [lay_out_texts(group, other, 0, share=share) for group in texts]
        return now / operations(built, groups, seen.first_trained)

    longest = max(text.length for group in texts for text in group)
    able = [rows for rows in _ROWS if longest <= rows <= layout.tokens_per_forward]
    if layout.kind == "padded":
        able = able or [layout.row_tokens]
        share = seen.shareable and layout.share_prefixes is not False
        factors = {rows: factor(share, kind="packed", row_tokens=rows) for rows in able}
        best = max(able, key=lambda rows: factors[rows])
        change = f"{key}layout.kind=packed {key}layout.row_tokens={best}"
        found = [Advice(change, factors[best], "less padding, and shared prefixes once where attention is causal")]
    else:
        found = []
        if not seen.shared and seen.shareable:
            why = "a prefix that texts share, such as the prompt, is computed once in each micro-batch"
            found.append(Advice(f"{key}layout.share_prefixes=auto", factor(True), why))
        factors = {rows: factor(seen.shared, row_tokens=rows) for rows in able if rows != layout.row_tokens}
        if factors:
            best = max(factors, key=lambda rows: factors[rows])
            found.append(Advice(f"{key}layout.row_tokens={best}", factors[best], "fewer empty cells, less attention"))
    return [one for one in found if one.factor is not None and one.factor >= _WORTH_SAYING]


def _upper_layers(recipe: schema.Recipe, built: EmbeddingModel, seen: Observations, now: float) -> list[Advice]:
    """LoRA on the last third of the layers only, where the backward pass then ends. It changes what is learned."""
    layers = len(built.encoder.backbone.layers)
    last = max(1, layers // 3)
    if recipe.model.lora is None or layers - seen.first_trained <= last or trains_inputs(built):
        return []
    factor = now / operations(built, seen.groups, layers - last)
    why = "no backward pass below them; this changes the model, so compare its quality"
    return [Advice(f"model.lora.last_layers={last}", factor, why)]
