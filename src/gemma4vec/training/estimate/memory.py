"""Peak memory of a training, part by part, and the GPUs that hold it.

All micro-batches of a batch run forward before its backward, so their activations add up. With gradient checkpointing
only the inputs of the layers do, and one layer at a time is computed again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gemma4vec.machine.memory import GB
from gemma4vec.model.backbone.meta_model import Kind
from gemma4vec.training.engine.parameter_count import Parameters
from gemma4vec.training.estimate.data import BatchStatistics, one_micro_batch
from gemma4vec.training.estimate.layers import Costs, total_cost

GPU_SIZES_GB = (16, 24, 40, 80)
# CUDA's context and libraries on a GPU (others measured 0.4 to 0.8 GB), and the share that fragmentation leaves usable.
_CUDA_CONTEXT = 0.6 * GB
_USABLE = 0.95
# Memory that C's allocator holds on top of a batch's activations, because earlier batches had other shapes: 6 to 24% in
# `benchmarks/speed/dry_run.py`. The shallow model shows a part of it, which is in `working`.
_FRAGMENTS = 0.10


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak of training, by part.

    Attributes:
        weights: base, adapters, readout and head.
        optimizer: fp32 copies of what is trained, and AdamW's moments.
        activations: of all micro-batches of a batch, kept until the backward pass.
        fragments: memory that the allocator cannot use again.
        working: gradients, and the buffers of the layer that runs.
        framework: the process itself: libraries, tokenizer, rows (measured).
    """

    weights: float
    optimizer: float
    activations: float
    working: float
    framework: float
    fragments: float = 0.0

    @property
    def peak(self) -> float:
        """All parts."""
        return self.weights + self.optimizer + self.activations + self.fragments + self.working + self.framework

    def scaled_to(self, peak: float) -> "Memory":
        """The same with another peak, which a training had: the parts that are estimated change alike."""
        estimated = self.activations + self.fragments + self.working
        factor = max(0.0, peak - (self.peak - estimated)) / estimated if estimated else 1.0
        return replace(
            self,
            activations=factor * self.activations,
            fragments=factor * self.fragments,
            working=factor * self.working,
        )


def training_memory(
    parameters: Parameters,
    kept: Costs,
    kinds: Sequence[Kind],
    reading: BatchStatistics,
    *,
    buffers: float | None,
    input_bytes: float,
    checkpointing: bool,
    accumulate: int,
    framework: float,
) -> Memory:
    """The peak of a stage.

    Args:
        parameters: counts.
        kept: bytes that a cell keeps in a layer of each kind.
        kinds: the kind of each layer.
        reading: the batches.
        buffers: bytes that a step needs in addition to activations; None: as much as a layer keeps (twice with gradient
            checkpointing).
        input_bytes: bytes of one cell as it enters a layer.
        checkpointing: whether layers keep only their input.
        accumulate: batches in an optimizer step.
        framework: bytes of the process without a model.
    """
    activations = activation_bytes(kept, kinds, reading.largest_cells, input_bytes, checkpointing)
    if buffers is None:
        cells = one_micro_batch(reading).largest_cells
        none = total_cost(kept, [], cells)
        one_layer = max((total_cost(kept, [kind], cells) - none for kind in kinds), default=0.0)
        buffers = 2 * one_layer if checkpointing else one_layer
    gradients = float(parameters.trainable_bytes)
    update = gradients + (parameters.master_bytes or 0)  # gradients are cast to fp32 where weights have fp32 copies
    # The peak is at the start of the backward, with all activations, or at the start of the update, with all gradients.
    working = max(buffers + (gradients if accumulate > 1 else 0.0), update - activations)
    return Memory(
        weights=float(parameters.weight_bytes),
        optimizer=float(parameters.master_bytes + parameters.moment_bytes),
        activations=activations,
        working=working,
        framework=framework,
        fragments=_FRAGMENTS * activations,
    )


def activation_bytes(
    kept: Costs, kinds: Sequence[Kind], cells: dict[bool, float], input_bytes: float, checkpointing: bool
) -> float:
    """Bytes that layers of these kinds, and everything outside layers, keep until the backward pass."""
    if not checkpointing:
        return total_cost(kept, kinds, cells)
    return total_cost(kept, [], cells) + sum(kind[-1] for kind in kinds) * input_bytes * sum(cells.values())


def gpu_table(on_gpu: Memory, sizes_gb: Sequence[float] = GPU_SIZES_GB) -> list[dict[str, float | bool]]:
    """For each size of GPU memory in GB, whether the training fits."""
    needed = on_gpu.peak
    return [{"memory_gb": size, "needed_gb": needed / GB, "fits": needed <= _USABLE * size * GB} for size in sizes_gb]


def memory_on_gpu(memory: Memory, activations: float) -> Memory:
    """The same training on a GPU: libraries and rows stay in main memory, CUDA's context is added."""
    return Memory(memory.weights, memory.optimizer, activations, memory.working, _CUDA_CONTEXT)
