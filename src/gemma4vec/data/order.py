"""The order of an epoch: every row once, or so many of each source, shuffled; whole batches of one source if asked."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gemma4vec.data.mixture import MixedRows, group_numbers, quotas
from gemma4vec.data.rows import Row
from gemma4vec.errors import InputError


class Epoch(NamedTuple):
    """Numbers of the rows in the order of an epoch, and in which pass over its source each stands: `int64[E]` both."""

    rows: NDArray[np.int64]
    passes: NDArray[np.int64]


def epoch_order(rows: Sequence[Row], *, size: int, seed: int, epoch: int, group_rows: int = 1) -> Epoch:
    """The rows of an epoch, cut into batches of `size` by the caller, who leaves out what is left at the end.

    An epoch has as many places as there are rows. A source with a share fills so many of them: it goes on where it
    ended in the epoch before, starting a new pass, in a new order, whenever it is through.

    Raises:
        InputError: batches of one source, and a source with fewer rows than a batch.
    """
    groups = group_numbers(rows) if group_rows > 1 else None
    generator = np.random.default_rng([seed, epoch])
    if not isinstance(rows, MixedRows) or not rows.mixed:
        order = shuffled(len(rows), groups, generator, group_rows)
        return Epoch(order, np.broadcast_to(np.int64(epoch), order.shape))  # one number, whatever the size
    shares = [len(part.rows) / len(rows) if part.share is None else part.share for part in rows.parts]
    if not rows.one_source_batches:
        counts = quotas(shares, len(rows))
        taken = [_taken(rows, number, count, seed, epoch) for number, count in enumerate(counts)]
        found = Epoch(*(np.concatenate(arrays) for arrays in zip(*taken, strict=True)))
        order = shuffled(len(found.rows), None if groups is None else groups[found.rows], generator, group_rows)
        return Epoch(found.rows[order], found.passes[order])
    counts = [count * size for count in quotas(shares, len(rows) // size)]
    batches: list[Epoch] = []
    for number, count in enumerate(counts):
        if count and len(rows.parts[number].rows) < size:
            part = rows.parts[number]
            raise InputError(
                f"mixture.one_source_batches: source {part.name!r} has {len(part.rows)} rows, a batch {size}; use "
                "smaller batches"
            )
        found = _taken(rows, number, count, seed, epoch)
        order = shuffled(count, None if groups is None else groups[found.rows], generator, group_rows)
        batches += [
            Epoch(found.rows[order[at : at + size]], found.passes[order[at : at + size]])
            for at in range(0, count, size)
        ]
    drawn = [batches[i] for i in generator.permutation(len(batches)).tolist()]
    return Epoch(*(np.concatenate(arrays) for arrays in zip(*drawn, strict=True)))


def shuffled(
    count: int, groups: NDArray[np.int64] | None, generator: np.random.Generator, group_rows: int = 1
) -> NDArray[np.int64]:
    """All numbers below `count` once: shuffled, or in shuffled runs of `group_rows` shuffled ones of one group."""
    order = generator.permutation(count)
    if groups is None or group_rows == 1 or not count:
        return order
    _, first, inverse = np.unique(groups[order], return_index=True, return_inverse=True)
    by_appearance = np.empty(len(first), dtype=np.int64)
    by_appearance[np.argsort(first)] = np.arange(len(first))
    group_of = by_appearance[inverse]
    together = np.argsort(group_of, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(group_of))[:-1]])
    within = np.arange(count) - starts[group_of[together]]
    run_of = np.cumsum(within % group_rows == 0) - 1
    place_of_run = np.argsort(generator.permutation(int(run_of[-1]) + 1))
    return order[together][np.argsort(place_of_run[run_of], kind="stable")]


def _taken(rows: MixedRows, number: int, count: int, seed: int, epoch: int) -> Epoch:
    """The `count` rows that a part gives to an epoch: the next ones of its endless passes, each in its own order."""
    size = len(rows.parts[number].rows)
    if not count:
        return Epoch(np.empty(0, np.int64), np.empty(0, np.int64))
    place, end = epoch * count, (epoch + 1) * count
    found, passes = [], []
    while place < end:
        turn, within = divmod(place, size)
        taken = min(size - within, end - place)
        order = np.random.default_rng([seed, number, turn, 1]).permutation(size)
        found.append(order[within : within + taken] + rows.starts[number])
        passes.append(np.full(taken, turn))
        place += taken
    return Epoch(np.concatenate(found), np.concatenate(passes))
