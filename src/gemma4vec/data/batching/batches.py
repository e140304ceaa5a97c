"""Batches of rows in an order that depends on seed and step alone, so a resumed run sees the same batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from gemma4vec.data.batching.epoch_order import Epoch, epoch_order
from gemma4vec.data.batching.near_rows import ClusterWindow
from gemma4vec.data.batching.spread_duplicates import DuplicateSpreader, units_of_rows
from gemma4vec.data.rows.lazy_rows import LazyRows, as_lazy_rows
from gemma4vec.data.rows.rows import Row
from gemma4vec.errors import InputError
from gemma4vec.text.prompts import Document

_NEAR = 3  # keeps the order of near rows apart from other draws of the same seed


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
    near: ClusterWindow | None = None,
) -> Iterator[RowBatch]:
    """Endless batches of `size` rows from batch number `start` on; an incomplete last batch of an epoch is dropped.

    With `group_rows` above 1, rows of one group come in runs of that length, in random order. A batch then has several
    rows of each of a few groups, which are harder negatives than random rows. `near` says what the groups are, in place
    of the rows' own (`data.batching.near_rows`). `no_duplicates` spreads rows with equal texts over different batches
    (`data.batching.spread_duplicates`).

    Raises:
        InputError: fewer rows than one batch, or a row with fewer than `hard_negatives` negatives.
    """
    check_rows(rows, size=size, hard_negatives=hard_negatives)
    lazy = as_lazy_rows(rows)
    drawn = numbered_batches(
        rows, size=size, seed=seed, start=start, group_rows=group_rows, no_duplicates=no_duplicates, near=near
    )
    for chosen, passes, epoch in drawn:
        yield _draw(lazy, chosen, passes, hard_negatives, seed, epoch)


def numbered_batches(
    rows: Sequence[Row],
    *,
    size: int,
    seed: int,
    start: int = 0,
    group_rows: int = 1,
    no_duplicates: bool = False,
    near: ClusterWindow | None = None,
) -> Iterator[tuple[list[int], list[int], int]]:
    """(row numbers, pass of each, epoch) of the batches that `batches` draws."""
    per_epoch = len(rows) // size
    spreader = DuplicateSpreader(rows) if no_duplicates else None
    units_R = units_of_rows(rows)[0] if near is not None else None
    epoch_shown, order = -1, Epoch(np.empty(0, np.int64), np.empty(0, np.int64))
    step = start
    while True:
        epoch, within = divmod(step, per_epoch)
        if epoch != epoch_shown:
            order = epoch_order(rows, size=size, seed=seed, epoch=epoch, group_rows=group_rows if near is None else 1)
            part = slice(0, len(order.rows))
            if near is not None and units_R is not None:
                part = near.places(epoch, per_epoch, size)
                generator = np.random.default_rng([seed, epoch, near.first, _NEAR])
                order = _replace(order, part, near.arrange(_part(order, part), units_R, generator))
            if spreader is not None:
                order = _replace(order, part, spreader.spread(_part(order, part), size))
            epoch_shown = epoch
        here = slice(within * size, (within + 1) * size)
        yield order.rows[here].tolist(), order.passes[here].tolist(), epoch
        step += 1


def _part(order: Epoch, part: slice) -> Epoch:
    return Epoch(order.rows[part], order.passes[part])


def _replace(order: Epoch, part: slice, by: Epoch) -> Epoch:
    if part == slice(0, len(order.rows)):
        return by
    rows, passes = order.rows.copy(), order.passes.copy()
    rows[part], passes[part] = by
    return Epoch(rows, passes)


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
