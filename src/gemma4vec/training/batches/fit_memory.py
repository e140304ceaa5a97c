"""Checks before the first step that a batch fits into memory; if not, turns GradCache on and cuts micro-batches.

Estimated from what a small micro-batch keeps. Both remedies change speed and memory only: GradCache has the plain
path's gradients, and the token budget only decides where a batch is cut.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from gemma4vec.machine.memory import GB, DeviceMemory
from gemma4vec.model.encoder.build import EmbeddingModel
from gemma4vec.model.encoder.encoder import TextEncoder
from gemma4vec.model.packing.packed_batch import PackedBatch
from gemma4vec.recipe import schema
from gemma4vec.training.batches.grad_cache import random_state, replay_random_state
from gemma4vec.training.engine.activation_memory import count_kept_bytes
from gemma4vec.training.engine.parameter_count import count_parameters
from gemma4vec.training.engine.task import ExtraParameter

# Largest share of the device's memory for activations before `grad_cache: auto` turns GradCache on. Of the total, not
# of what is free at the moment: that would choose differently in a resumed run.
_LARGEST_SHARE = 0.5
# Share of the free memory that is planned with: estimates are not exact, and other processes need some.
_USABLE = 0.9
# Memory of a layer's backward as a multiple of what it kept: gradients, buffers.
_WORKING = 1.25
# Cells of the micro-batch that is measured. Few, because memory may be short.
_MEASURED = 512


@dataclass(frozen=True)
class BatchMemory:
    """The memory that a batch needs.

    Attributes:
        per_cell: bytes that a cell keeps until its backward pass.
        cells: cells of the batch, padding included.
        largest: cells of its largest micro-batch.
        row: cells of its longest row; no micro-batch can be smaller.
        fixed: bytes of every batch: gradients, and the state of the optimizer.
    """

    per_cell: float
    cells: float
    largest: float
    row: int
    fixed: float

    def at_once(self, cells: float) -> float:
        """Bytes when the activations of `cells` are in memory together."""
        return self.fixed + _WORKING * self.per_cell * cells


@dataclass(frozen=True)
class Fit:
    """GradCache or not, the token budget, and a line for people where these are not the recipe's."""

    cached: bool
    tokens_per_forward: int
    remark: str = ""


def fit(layout: schema.Layout, needs: BatchMemory, memory: DeviceMemory, *, can_cache: bool = True) -> Fit:
    """Keep a batch's activations, compute them again, or that in smaller micro-batches: the first that fits.

    `can_cache` is false for a task whose micro-batches all keep their activations.
    """
    usable = _USABLE * memory.free
    fits = needs.at_once(needs.cells) <= usable
    auto = can_cache and layout.grad_cache == "auto"
    many = auto and needs.cells > needs.largest and needs.per_cell * needs.cells > _LARGEST_SHARE * memory.total
    cached = (can_cache and layout.grad_cache is True) or many or (auto and not fits)
    budget = layout.tokens_per_forward
    have = f"{memory.free / GB:.1f} GB are free"
    if not cached:
        needed = f"memory: a batch needs about {needs.at_once(needs.cells) / GB:.1f} GB and {have}"
        return Fit(False, budget, "" if fits else f"warning: {needed}; {_advice(layout, can_cache)}")
    if needs.at_once(needs.largest) <= usable:
        switched = f"memory: a batch's activations are about {needs.per_cell * needs.cells / GB:.1f} GB and {have}"
        return Fit(True, budget, f"{switched}: GradCache is on, for a second forward pass" if auto else "")
    fitting = int((usable - needs.fixed) / (_WORKING * max(1.0, needs.per_cell)) / needs.row)
    smaller = max(1, fitting) * needs.row
    remark = (
        f"memory: {have}, micro-batches of {budget:,} tokens need about {needs.at_once(needs.largest) / GB:.1f} GB: "
        f"they are cut to {smaller:,} tokens (layout.tokens_per_forward), with GradCache; the result is the same"
    )
    if fitting < 1:
        remark = f"warning: {remark}; even these need about {needs.at_once(smaller) / GB:.1f} GB: free some memory"
    return Fit(True, min(budget, smaller), remark)


def _advice(layout: schema.Layout, can_cache: bool) -> str:
    if can_cache:
        return "set layout.grad_cache=auto"
    return "use a smaller batch.rows with more batch.accumulate" + (
        "" if layout.gradient_checkpointing is True else ", or layout.gradient_checkpointing=true"
    )


def measure_needs(
    built: EmbeddingModel,
    layout: schema.Layout,
    lay_out: Callable[[schema.Layout], Sequence[PackedBatch]],
    forward: Callable[[PackedBatch], Tensor] | None = None,
    extra: Mapping[str, ExtraParameter] | None = None,
) -> BatchMemory:
    """Lay a batch out as the recipe says and in small micro-batches, and measure the largest of the small ones.

    Args:
        built: the model as it will run.
        layout: the recipe's.
        lay_out: settings to the layouts of a batch.
        forward: what the task computes of a layout; None: the encoder's vectors.
        extra: what the task trains next to the model.
    """
    layouts = lay_out(layout)
    budget = min(layout.tokens_per_forward, max(_MEASURED, 2 * max(_columns(one) for one in layouts)))
    small = max(lay_out(layout.model_copy(update={"tokens_per_forward": budget})), key=lambda one: one.all_tokens)
    parameters = count_parameters(built, extra=extra)
    return BatchMemory(
        per_cell=kept_bytes(built.encoder, small, forward) / small.all_tokens,
        cells=float(sum(one.all_tokens for one in layouts)),
        largest=float(max(one.all_tokens for one in layouts)),
        row=max(_columns(one) for one in layouts),
        fixed=float(parameters.trainable_bytes + parameters.master_bytes + parameters.moment_bytes),
    )


def _columns(layout: PackedBatch) -> int:
    return int(layout.input_ids_RC.shape[1])


def kept_bytes(
    encoder: TextEncoder, layout: PackedBatch, forward: Callable[[PackedBatch], Tensor] | None = None
) -> int:
    """Bytes that encoding a layout keeps for its backward pass, without parameters. The random state stays the same.

    `forward` is what the task computes of a layout; None: the encoder's vectors.
    """
    sizes: list[int] = []
    counting = count_kept_bytes(encoder.backbone, encoder.parameters(), lambda address, size: sizes.append(size))
    with replay_random_state(random_state(encoder), encoder), counting:
        encoder([layout]) if forward is None else forward(layout)
    return sum(sizes)
