"""Batches of rows in an order that depends on seed and step alone: a resumed run sees what it would have seen."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from gemma4vec.data.batching.epoch_order import Epoch, epoch_order
from gemma4vec.data.batching.mixture import MixedRows, negative_counts
from gemma4vec.data.batching.spread_duplicates import DuplicateSpreader
from gemma4vec.data.rows.rows import Row
from gemma4vec.errors import InputError
from gemma4vec.text.prompts import Document


@dataclass(frozen=True)
class RowBatch:
    """N rows as they are trained on: one positive and K negatives each, drawn for this epoch.

    `sources` names the source of each row, where the rows come from named ones. `scores` are a teacher's, of each row's
    positive and then of its negatives; None for a row that has none.
    """

    queries: list[str]
    positives: list[Document]
    negatives: list[list[Document]]
    epoch: int
    sources: list[str] = field(default_factory=list)
    scores: list[list[float] | None] = field(default_factory=list)


def check_rows(rows: Sequence[Row], *, size: int, hard_negatives: int) -> None:
    """Whether batches can be drawn at all.

    Raises:
        InputError: fewer rows than a batch needs, or a row with fewer hard negatives than asked for.
    """
    if len(rows) < size:
        raise InputError(f"batch.rows: {size} rows asked for, the data has {len(rows)}; use a smaller batch")
    if not hard_negatives:
        return
    fewer = np.flatnonzero(negative_counts(rows) < hard_negatives)
    if len(fewer):
        row = rows[int(fewer[0])]
        raise InputError(
            f"task.hard_negatives: {hard_negatives} asked for, row {fewer[0] + 1} ({row.query[:40]!r}) has "
            f"{len(row.neg)}; mine more, or use a smaller number"
        )


def batches(
    rows: Sequence[Row],
    *,
    size: int,
    hard_negatives: int,
    seed: int,
    start: int = 0,
    group_rows: int = 1,
    no_duplicates: bool = False,
) -> Iterator[RowBatch]:
    """Endless batches of `size` rows, from batch number `start` on. The rows left at an epoch's end are left out.

    With `group_rows` above 1, rows of one group follow each other in runs of that length, the runs in random order: a
    batch then holds several rows of each of a few groups, which are harder to tell apart than random ones.
    `no_duplicates` keeps rows of an equal query or positive apart (see `data.batching.spread_duplicates`).

    Raises:
        InputError: fewer rows than a batch needs, or a row with fewer hard negatives than asked for.
    """
    check_rows(rows, size=size, hard_negatives=hard_negatives)
    per_epoch = len(rows) // size
    apart = DuplicateSpreader(rows) if no_duplicates else None
    epoch_shown, order = -1, Epoch(np.empty(0, np.int64), np.empty(0, np.int64))
    step = start
    while True:
        epoch, within = divmod(step, per_epoch)
        if epoch != epoch_shown:
            order = epoch_order(rows, size=size, seed=seed, epoch=epoch, group_rows=group_rows)
            if apart is not None:
                order = apart.spread(order, size)
            epoch_shown = epoch
        here = slice(within * size, (within + 1) * size)
        yield _draw(rows, order.rows[here].tolist(), order.passes[here].tolist(), hard_negatives, seed, epoch)
        step += 1


def _draw(
    rows: Sequence[Row], chosen: list[int], passes: list[int], hard_negatives: int, seed: int, epoch: int
) -> RowBatch:
    """Draw a positive and the hard negatives of each row; the draw depends on seed, pass and row alone."""
    queries, positives, negatives = [], [], []
    scores: list[list[float] | None] = []
    for index, turn in zip(chosen, passes, strict=True):
        row = rows[index]
        generator = np.random.default_rng([seed, turn, index])
        queries.append(row.query)
        positive = int(generator.integers(len(row.pos)))
        positives.append(row.pos[positive])
        drawn = generator.permutation(len(row.neg))[:hard_negatives].tolist()
        negatives.append([row.neg[i] for i in drawn])
        given = row.scores
        scores.append(None if given is None else [given.pos[positive], *(given.neg[i] for i in drawn)])
    sources = [rows.parts[rows.part_of(index)].name for index in chosen] if isinstance(rows, MixedRows) else []
    return RowBatch(queries, positives, negatives, epoch, sources, scores)
