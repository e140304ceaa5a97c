"""Does a batch fit into memory? Else its activations are computed again, in micro-batches as small as they must be.

Estimated before the first step, from what a small micro-batch keeps. Both ways out change speed and memory alone:
GradCache has the plain path's gradients, and the token budget only says where a batch is cut.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gemma4vec.machine.describe import memory_bytes
from gemma4vec.model.encoder.build import EmbeddingModel
from gemma4vec.model.packing.packed_batch import PackedBatch
from gemma4vec.recipe import schema
from gemma4vec.training.engine.parameter_count import count_parameters
from gemma4vec.training.tasks.grad_cache import kept_bytes

GB = 1e9
# Share of the device's memory that activations may take before `grad_cache: auto` computes them again instead. Of all
# memory, not of what is free at the moment, which would choose otherwise in a resumed run.
_ROOM = 0.5
# Share of the free memory that is planned with: estimates are not exact, and others want some too.
_USABLE = 0.9
# What a layer's backward holds beside what was kept: gradients, buffers.
_WORKING = 1.25
# Cells of the micro-batch that is measured: little, since there may be little room.
_MEASURED = 512


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes of the device that computes: free for this process, and in all."""

    free: float
    total: float


@dataclass(frozen=True)
class BatchMemory:
    """What a batch takes.

    Attributes:
        per_cell: bytes that a cell keeps until its backward pass.
        cells: of the batch, padding included.
        largest: cells of its largest micro-batch.
        row: cells of its longest row, below which no micro-batch can be cut.
        fixed: bytes whatever the batch: gradients, and what the optimizer will hold.
    """

    per_cell: float
    cells: float
    largest: float
    row: int
    fixed: float

    def at_once(self, cells: float) -> float:
        """Bytes where so many cells' activations are in memory together."""
        return self.fixed + _WORKING * self.per_cell * cells


@dataclass(frozen=True)
class Fit:
    """GradCache or not, the token budget, and a line for people where that is not what the recipe says."""

    cached: bool
    tokens_per_forward: int
    remark: str = ""


def device_memory(device: torch.device) -> DeviceMemory:
    """The memory of a device; processes that train together on one machine's CPU share it."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return DeviceMemory(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device), total)
    total, free = memory_bytes()
    return DeviceMemory(free / int(os.environ.get("LOCAL_WORLD_SIZE", "1")), total)


def fit(layout: schema.Layout, needs: BatchMemory, room: DeviceMemory, *, can_cache: bool = True) -> Fit:
    """Keep a batch's activations, compute them again, or do that in smaller micro-batches: the first that fits.

    `can_cache` is false for a task whose micro-batches all keep their activations.
    """
    usable = _USABLE * room.free
    fits = needs.at_once(needs.cells) <= usable
    auto = can_cache and layout.grad_cache == "auto"
    many = auto and needs.cells > needs.largest and needs.per_cell * needs.cells > _ROOM * room.total
    cached = (can_cache and layout.grad_cache is True) or many or (auto and not fits)
    budget = layout.tokens_per_forward
    have = f"{room.free / GB:.1f} GB are free"
    if not cached:
        needed = f"memory: a batch needs about {needs.at_once(needs.cells) / GB:.1f} GB and {have}"
        return Fit(False, budget, "" if fits else f"warning: {needed}; {_advice(layout, can_cache)}")
    if needs.at_once(needs.largest) <= usable:
        switched = f"memory: a batch's activations are about {needs.per_cell * needs.cells / GB:.1f} GB and {have}"
        return Fit(True, budget, f"{switched}: GradCache is on, for a second forward pass" if auto else "")
    fitting = int((usable - needs.fixed) / (_WORKING * max(1.0, needs.per_cell)) / needs.row)
    smaller = max(1, fitting) * needs.row
    said = (
        f"memory: {have}, micro-batches of {budget:,} tokens need about {needs.at_once(needs.largest) / GB:.1f} GB: "
        f"they are cut to {smaller:,} tokens (layout.tokens_per_forward), with GradCache; the result is the same"
    )
    if fitting < 1:
        said = f"warning: {said}; even these need about {needs.at_once(smaller) / GB:.1f} GB: free some memory"
    return Fit(True, min(budget, smaller), said)


def _advice(layout: schema.Layout, can_cache: bool) -> str:
    if can_cache:
        return "set layout.grad_cache=auto"
    return "use a smaller batch.rows with more batch.accumulate" + (
        "" if layout.gradient_checkpointing is True else ", or layout.gradient_checkpointing=true"
    )


def first_layouts(task: Any, layout: schema.Layout) -> list[PackedBatch]:
    """The layouts of the first batch of a task (one with a `stage`), as they would be in other settings."""
    stage, task.stage = task.stage, task.stage.model_copy(update={"layout": layout})
    try:
        return list(next(task.batches()).layouts)
    finally:
        task.stage = stage


def needs_of(
    built: EmbeddingModel,
    layout: schema.Layout,
    lay_out: Callable[[schema.Layout], Sequence[PackedBatch]],
    forward: Callable[[PackedBatch], Tensor] | None = None,
) -> BatchMemory:
    """Lay a batch out as the recipe says and in small micro-batches, and encode the largest of the small ones once.

    Args:
        built: the model as it will run.
        layout: the recipe's.
        lay_out: the layouts of a batch, in these settings.
        forward: what is done with a layout, where that is not to make vectors of it.
    """
    layouts = lay_out(layout)
    budget = min(layout.tokens_per_forward, max(_MEASURED, 2 * max(_columns(one) for one in layouts)))
    small = max(lay_out(layout.model_copy(update={"tokens_per_forward": budget})), key=lambda one: one.all_tokens)
    parameters = count_parameters(built)
    return BatchMemory(
        per_cell=kept_bytes(built.encoder, small, forward) / small.all_tokens,
        cells=float(sum(one.all_tokens for one in layouts)),
        largest=float(max(one.all_tokens for one in layouts)),
        row=max(_columns(one) for one in layouts),
        fixed=float(parameters.trainable_bytes + parameters.master_bytes + parameters.moment_bytes),
    )


def _columns(layout: PackedBatch) -> int:
    return int(layout.input_ids_RC.shape[1])
