"""The batches that a stage will read: the first ones are drawn, tokenized and laid out."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from gemma4vec.model.packing.packed_batch import PackedBatch, padding_share
from gemma4vec.recipe import schema
from gemma4vec.training.batches.micro_batches import padding_by_layout
from gemma4vec.training.engine.task import Task

_BATCHES = 16
_SECONDS = 2.0  # of the processor: other processes change no estimate


@dataclass(frozen=True)
class BatchStatistics:
    """Means over the drawn batches, and the largest of them.

    Attributes:
        batches: number of drawn batches.
        tokens: real tokens of a batch.
        cells: cells of a batch, padding and the texts that terms write included, by whether compiled layers accept
            their layout.
        largest_cells: the same for the batch with the most cells.
        largest_layout: cells of the largest micro-batch.
        columns: columns of a layout, weighted by its cells.
        padding_share: share of computed cells without a real token.
        seconds: time to draw, tokenize and lay out a batch.
        padding_by_layout: `padding_share` of the same texts packed and padded; empty where it was not computed.
        decoder_cells: those of the cells that a decoder computes, in a task that has one.
    """

    batches: int
    tokens: float
    cells: dict[bool, float]
    largest_cells: dict[bool, float]
    largest_layout: int
    columns: float
    padding_share: float
    seconds: float
    padding_by_layout: dict[str, float] = field(default_factory=dict)
    decoder_cells: float = 0.0

    @property
    def all_cells(self) -> float:
        """Cells of a batch, whatever their shape."""
        return sum(self.cells.values())


def read_batches(task: Task, layout: schema.Layout | None = None, *, batches: int = _BATCHES) -> BatchStatistics:
    """Draw the first batches of a task, at least two, for about two seconds.

    With the stage's `layout`, its texts are also laid out packed and padded, for comparison.
    """
    groups: list[Sequence[PackedBatch]] = []
    drawn: list[list[PackedBatch]] = []
    written: list[list[PackedBatch]] = []  # texts that terms have the base write
    seconds: list[float] = []
    decoder_cells: list[int] = []
    endless = islice(task.batches(0), batches)
    began = time.process_time()
    while len(drawn) < batches and (len(drawn) < 2 or time.process_time() - began < _SECONDS):
        started = time.perf_counter()
        batch: Any = next(endless)
        seconds.append(time.perf_counter() - started)
        drawn.append(list(batch.layouts))
        written.append(list(getattr(batch, "written", ())))
        decoder_cells.append(sum(layout.all_tokens for layout in getattr(batch, "decoder", ())))
        groups += getattr(batch, "groups", [batch.layouts])
    each = [cells_of([*layouts, *more]) for layouts, more in zip(drawn, written, strict=True)]
    cells = {compilable: statistics.fmean(found[compilable] for found in each) for compilable in (True, False)}
    tokens = statistics.fmean(sum(layout.real_tokens for layout in layouts) for layouts in drawn)
    every = [layout for layouts in drawn for layout in layouts]
    all_cells = sum(layout.all_tokens for layout in every)
    share = bool(getattr(task, "shares_prefix", False))
    by_layout = padding_by_layout(groups, layout, share=share) if layout is not None else {}
    return BatchStatistics(
        batches=len(drawn),
        tokens=tokens,
        cells=cells,
        largest_cells=max(each, key=lambda found: sum(found.values())),
        largest_layout=max(layout.all_tokens for layout in every),
        columns=sum(layout.all_tokens * layout.input_ids_RC.shape[1] for layout in every) / all_cells,
        padding_share=padding_share(every),
        # The first batch shuffles the epoch and warms up the tokenizer; a run does that once.
        seconds=statistics.fmean(seconds[1:]),
        padding_by_layout=by_layout,
        decoder_cells=statistics.fmean(decoder_cells),
    )


def one_micro_batch(reading: BatchStatistics, budget: int | None = None) -> BatchStatistics:
    """The same batches with only the largest micro-batch, cut to `budget`, in memory at a time."""
    compilable = reading.cells[True] >= reading.cells[False]
    cells = min(reading.largest_layout, budget or reading.largest_layout)
    return replace(reading, largest_cells={compilable: float(cells), not compilable: 0.0})


def cells_of(layouts: Sequence[PackedBatch]) -> dict[bool, float]:
    """Cells of layouts by whether compiled layers accept them."""
    return {
        compilable: float(sum(layout.all_tokens for layout in layouts if layout.compilable is compilable))
        for compilable in (True, False)
    }
