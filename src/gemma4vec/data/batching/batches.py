"""Batches of rows in an order that depends on seed and step alone, so a resumed run sees the same batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from gemma4vec.data.batching.epoch_order import Epoch, epoch_order
from gemma4vec.data.batching.spread_duplicates import DuplicateSpreader
from gemma4vec.data.rows.lazy_rows import LazyRows, as_lazy_rows
from gemma4vec.data.rows.rows import Row
from gemma4vec.errors import InputError
from gemma4vec.text.prompts import Document


@dataclass(frozen=True)
class RowBatch:
    """N rows of a training step, each with one positive and K negatives drawn for this epoch.

    `sources` has the source of each row; it is empty if the rows have no named source. `scores` has a teacher's scores
    for each row: the positive's, then the negatives'; None for a row without scores.
    """

    queries: list[str]
    positives: list[Document]
    negatives: list[list[Document]]
    epoch: int
    sources: list[str] = field(default_factory=list)
    scores: list[list[float] | None] = field(default_factory=list)


def check_rows(rows: Sequence[Row], *, size: int, hard_negatives: int, where: str = "") -> None:
    """Check that batches can be drawn.

    Args:
        rows: the rows.
        size: rows in a batch.
        hard_negatives: negatives that are drawn for each row.
        where: key of the stage with a final period, for messages.

    Raises:
        InputError: fewer rows than one batch, or rows with fewer than `hard_negatives` negatives.
    """
    if len(rows) < size:
        raise InputError(f"{where}batch.rows: {size} rows asked for, the data has {len(rows)}; use a smaller batch")
    if not hard_negatives:
        return
    counts = as_lazy_rows(rows).negative_counts()
    fewer = np.flatnonzero(counts < hard_negatives)
    if len(fewer):
        first = rows[int(fewer[0])]
        raise InputError(
            f"{where}task.hard_negatives: {hard_negatives} asked for, {len(fewer):,} of {len(rows):,} rows have fewer, "
            f"first row {fewer[0] + 1} ({first.query[:40]!r}) with {len(first.neg)}; every row has {counts.min()}: "
            "use at most that, or mine more"
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
    """Endless batches of `size` rows from batch number `start` on; an incomplete last batch of an epoch is dropped.

    With `group_rows` above 1, rows of one group come in runs of that length, in random order. A batch then has several
    rows of each of a few groups, which are harder negatives than random rows. `no_duplicates` spreads rows with equal
    texts over different batches (`data.batching.spread_duplicates`).

    Raises:
        InputError: fewer rows than one batch, or a row with fewer than `hard_negatives` negatives.
    """
    check_rows(rows, size=size, hard_negatives=hard_negatives)
    lazy = as_lazy_rows(rows)
    per_epoch = len(rows) // size
    spreader = DuplicateSpreader(rows) if no_duplicates else None
    epoch_shown, order = -1, Epoch(np.empty(0, np.int64), np.empty(0, np.int64))
    step = start
    while True:
        epoch, within = divmod(step, per_epoch)
        if epoch != epoch_shown:
            order = epoch_order(rows, size=size, seed=seed, epoch=epoch, group_rows=group_rows)
            if spreader is not None:
                order = spreader.spread(order, size)
            epoch_shown = epoch
        here = slice(within * size, (within + 1) * size)
        yield _draw(lazy, order.rows[here].tolist(), order.passes[here].tolist(), hard_negatives, seed, epoch)
        step += 1


def _draw(rows: LazyRows, chosen: list[int], passes: list[int], hard_negatives: int, seed: int, epoch: int) -> RowBatch:
    """Draw one positive and the hard negatives of each row; the draw depends only on seed, pass and row."""
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
    return RowBatch(queries, positives, negatives, epoch, rows.source_names(chosen), scores)
