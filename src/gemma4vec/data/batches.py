"""Batches of rows in an order that depends on seed and step alone: a resumed run sees what it would have seen."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gemma4vec.data.rows import Row
from gemma4vec.errors import InputError
from gemma4vec.model.prompts import Document


@dataclass(frozen=True)
class RowBatch:
    """N rows as they are trained on: one positive and K negatives each, drawn for this epoch."""

    queries: list[str]
    positives: list[Document]
    negatives: list[list[Document]]
    epoch: int


def check_rows(rows: Sequence[Row], *, size: int, hard_negatives: int) -> None:
    """Whether batches can be drawn at all.

    Raises:
        InputError: fewer rows than a batch needs, or a row with fewer hard negatives than asked for.
    """
    if len(rows) < size:
        raise InputError(f"batch.rows: {size} rows asked for, the data has {len(rows)}; use a smaller batch")
    for number, row in enumerate(rows):
        if len(row.neg) < hard_negatives:
            raise InputError(
                f"task.hard_negatives: {hard_negatives} asked for, row {number + 1} ({row.query[:40]!r}) has "
                f"{len(row.neg)}; mine more, or use a smaller number"
            )


def batches(
    rows: Sequence[Row], *, size: int, hard_negatives: int, seed: int, start: int = 0, group_rows: int = 1
) -> Iterator[RowBatch]:
    """Endless batches of `size` rows, from batch number `start` on. The rows left at an epoch's end are left out.

    With `group_rows` above 1, rows of one group follow each other in runs of that length, the runs in random order: a
    batch then holds several rows of each of a few groups, which are harder to tell apart than random ones.

    Raises:
        InputError: fewer rows than a batch needs, or a row with fewer hard negatives than asked for.
    """
    check_rows(rows, size=size, hard_negatives=hard_negatives)
    per_epoch = len(rows) // size
    epoch_shown, order = -1, np.empty(0, dtype=np.int64)
    step = start
    while True:
        epoch, within = divmod(step, per_epoch)
        if epoch != epoch_shown:
            order = _order(rows, np.random.default_rng([seed, epoch]), group_rows)
            epoch_shown = epoch
        chosen = order[within * size : (within + 1) * size]
        yield _draw(rows, chosen, hard_negatives, seed, epoch)
        step += 1


def _order(rows: Sequence[Row], generator: np.random.Generator, group_rows: int) -> np.ndarray:
    """All rows once: shuffled, or in shuffled runs of `group_rows` shuffled rows of one group."""
    shuffled = generator.permutation(len(rows))
    if group_rows == 1:
        return shuffled
    members: dict[str | None, list[int]] = {}
    for index in shuffled.tolist():
        members.setdefault(rows[index].group, []).append(index)
    runs = [
        found[start : start + group_rows] for found in members.values() for start in range(0, len(found), group_rows)
    ]
    return np.array([index for run in generator.permutation(len(runs)).tolist() for index in runs[run]])


def _draw(rows: Sequence[Row], chosen: np.ndarray, hard_negatives: int, seed: int, epoch: int) -> RowBatch:
    """Draw a positive and the hard negatives of each row; the draw depends on seed, epoch and row alone."""
    queries, positives, negatives = [], [], []
    for index in chosen.tolist():
        row = rows[index]
        generator = np.random.default_rng([seed, epoch, index])
        queries.append(row.query)
        positives.append(row.pos[int(generator.integers(len(row.pos)))])
        drawn = generator.permutation(len(row.neg))[:hard_negatives]
        negatives.append([row.neg[int(i)] for i in drawn])
    return RowBatch(queries, positives, negatives, epoch)
