"""The cost of a layer of each kind on this machine, measured by training a shallow model with random weights.

It runs the code of a real step (encoder, readout, loss, backward, optimizer; compiled, checkpointed and laid out as the
recipe says) on real batches, so no efficiency is assumed. Costs are extrapolated in cells and layers: at these sizes a
step is linear in both within a few percent.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from gemma4vec.model import upstream
from gemma4vec.model.backbone.compilation import CompileChoice, failed_to_compile
from gemma4vec.model.backbone.meta_model import Kind
from gemma4vec.model.denoiser.decoder import Decoder
from gemma4vec.model.encoder.build import EmbeddingModel
from gemma4vec.training.engine.optimizer import MasterAdamW
from gemma4vec.training.engine.process_memory import memory_now, peak_since_start, release_memory, start_peak
from gemma4vec.training.engine.task import Task
from gemma4vec.training.estimate.layer_meter import LayerMeter, Place
from gemma4vec.training.estimate.sampled_head import Skipped
from gemma4vec.training.prepare_model import compile_for_training

# Batches that are measured, after the first one ran once more to warm up; quickly, the counting pass warms up. Two find
# the memory of three within 4%.
_MEASURED_BATCHES, _QUICK_BATCHES = 4, 2
Costs = dict[tuple[Kind | None, bool], float]


@dataclass(frozen=True)
class LayerCosts:
    """Costs by kind of layer (None: outside layers) and whether compiled layers accept the layout.

    A cell is a place for one token.

    Attributes:
        compile: whether the layers were compiled, as a run would compile them; not where the compiler gives up.
        seconds: time of forward and backward of a cell in one layer.
        kept_bytes: bytes that a cell keeps in one layer until its backward, without gradient checkpointing.
        eager_kept_bytes: the same without compilation (an upper bound for a GPU).
        optimizer_seconds: time of one update.
        optimizer_parameters: number of parameters it updated.
        peak_bytes: rise of memory in such steps; None where the system does not report it.
        peak_cells: cells of the largest batch among these steps.
        kinds: the kind of each layer of the shallow model.
    """

    compile: CompileChoice
    seconds: Costs
    kept_bytes: Costs
    eager_kept_bytes: Costs
    optimizer_seconds: float
    optimizer_parameters: int
    peak_bytes: int | None
    peak_cells: dict[bool, float]
    kinds: Sequence[Kind]


def measure_layers(
    built: EmbeddingModel,
    task: Task,
    optimizer: MasterAdamW,
    kinds: Sequence[Kind],
    *,
    compile: CompileChoice,
    checkpointing: Literal["selective"] | bool,
    decoder: Decoder | None = None,
    quick: bool = False,
    skipped: Skipped | None = None,
) -> LayerCosts:
    """Train a shallow model on the task's first batches: first to count kept bytes, then to measure time and memory.

    `kinds` are those of the model's layers, then those of the task's `decoder`. Costs are for a cell of either side.
    `quick` takes fewer steps, for costs that are not used as they are. `skipped`: what the head does not compute.
    """
    backbone = built.encoder.backbone
    built.encoder.train()
    meter = LayerMeter(backbone, [kind[-1] for kind in kinds], decoder)
    batches = list(islice(task.batches(0), _QUICK_BATCHES if quick else _MEASURED_BATCHES))
    batch = batches[0]

    def kept() -> Costs:
        meter.clear()
        with meter.attached():
            with meter.keeping_count():
                loss = task.loss(built, batch).value
            loss.backward()
        optimizer.step(0.0)
        return _by_kind(meter.kept_bytes, meter.cells, kinds)

    eager = kept()
    as_run = eager
    if checkpointing == "selective":
        backbone.use_gradient_checkpointing("selective")
    if compile.on:
        compile_for_training(backbone)
        if decoder is not None:
            decoder.compile_layers(backbone)
        try:
            as_run = kept()
        except upstream.compiler_errors() as error:  # as training does
            backbone.uncompile_layers()
            if decoder is not None:
                decoder.uncompile_layers()
            compile, as_run = failed_to_compile(error), kept()
    if checkpointing is True:
        backbone.use_gradient_checkpointing()
    steps_cells: list[dict[bool, float]] = []

    passes: list[Costs] = []
    updates: list[float] = []
    apart = skipped or Skipped()

    def step(one: Any) -> None:
        meter.clear()
        apart.seconds = 0.0
        with meter.attached():
            started = meter.now()
            task.loss(built, one).value.backward()
            before_update = meter.now()
        optimizer.step(0.0)
        updates.append(meter.now() - before_update)
        _add_the_rest(meter, before_update - started + apart.seconds)
        passes.append(_by_kind(meter.seconds, meter.cells, kinds))
        steps_cells.append({compilable: float(count) for compilable, count in meter.cells.items()})

    is_warm = quick and not compile.on  # by the pass that counted
    if not is_warm:
        step(batches[0])
        passes.clear()
        updates.clear()
        steps_cells.clear()
    peak_bytes = _rise(step, batches)
    return LayerCosts(
        compile=compile,
        seconds={
            # The lower middle: what another program took of a pass is not the layers' time.
            place: statistics.median_low(each[place] for each in passes if place in each)
            for place in dict.fromkeys(place for each in passes for place in each)
        },
        kept_bytes=as_run,
        eager_kept_bytes=eager,
        optimizer_seconds=statistics.median(updates),
        optimizer_parameters=sum(p.numel() for p in optimizer.parameters.values()),
        peak_bytes=peak_bytes,
        peak_cells=max(steps_cells, key=lambda cells: sum(cells.values())),
        kinds=kinds,
    )


def _rise(step: Callable[[Any], None], batches: Sequence[Any]) -> int | None:
    """Rise of memory over steps in bytes, fragments and libraries' buffers included.

    A batch has run once before, since what it allocates for good (such as code for new shapes) belongs to the process.
    Several batches, because pieces that the allocator keeps from one shape fit the next one badly.
    """
    release_memory()
    before = memory_now()
    watched = start_peak()
    for batch in batches:
        step(batch)
    return max(0, peak_since_start() - before) if watched else None


def _add_the_rest(meter: LayerMeter, whole: float) -> None:
    """Assign the time outside the layers to the cells of a step."""
    rest = max(0.0, whole - sum(meter.seconds.values()))
    cells = sum(meter.cells.values())
    for compilable, count in meter.cells.items():
        meter.seconds[None, compilable] = rest * count / cells


def _by_kind(counted: Mapping[Place, float], cells: Mapping[bool, int], kinds: Sequence[Kind]) -> Costs:
    """Means over the layers of a kind, for one cell."""
    found: dict[tuple[Kind | None, bool], list[float]] = {}
    for compilable, count in cells.items():
        for layer in [None, *range(len(kinds))]:
            kind = None if layer is None else kinds[layer]
            found.setdefault((kind, compilable), []).append(counted.get((layer, compilable), 0.0) / count)
    return {place: statistics.fmean(values) for place, values in found.items()}


def total_cost(costs: Costs, kinds: Sequence[Kind], cells: dict[bool, float]) -> float:
    """The cost of layers of these kinds and of everything else; a layout not measured costs as the other kind."""
    return sum(
        count * costs.get((kind, compilable), costs.get((kind, not compilable), 0.0))
        for kind in [None, *kinds]
        for compilable, count in cells.items()
    )
