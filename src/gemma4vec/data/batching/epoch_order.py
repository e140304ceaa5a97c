"""The order of an epoch: every row once, or so many of each source; batches of one source or task if asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gemma4vec.data.batching.mixture import MixedRows, group_numbers, quotas
from gemma4vec.data.rows.rows import Row
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
        InputError: batches of one source or task, and one with fewer rows than a batch.
    """
    groups = group_numbers(rows) if group_rows > 1 else None
    generator = np.random.default_rng([seed, epoch])
    if not isinstance(rows, MixedRows) or not rows.mixed:
        order = shuffled(len(rows), groups, generator, group_rows)
        return Epoch(order, np.broadcast_to(np.int64(epoch), order.shape))  # one number, whatever the size
    shares = _shares(rows)
    if not rows.one_source_batches and not rows.one_task_batches:
        found = _Unit("", _whole_parts(rows, shares)).taken(len(rows), seed, epoch)
        order = shuffled(len(found.rows), None if groups is None else groups[found.rows], generator, group_rows)
        return Epoch(found.rows[order], found.passes[order])
    units = _units(rows, shares)
    _check_units(rows, units, size)
    counts = [count * size for count in quotas([unit.share for unit in units], len(rows) // size)]
    batches: list[Epoch] = []
    for unit, count in zip(units, counts, strict=True):
        found = unit.taken(count, seed, epoch)
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


@dataclass(frozen=True)
class _Piece:
    """Rows that are gone through in passes of their own: a source's, or those of one task in a source.

    Attributes:
        key: seeds the order of its passes.
        size: how many rows.
        share: of the epoch's rows.
        start: number of the first.
        members: their numbers, where they do not follow each other.
    """

    key: tuple[int, ...]
    size: int
    share: float
    start: int = 0
    members: NDArray[np.int64] | None = None

    def taken(self, count: int, seed: int, epoch: int) -> Epoch:
        """The `count` rows that it gives to an epoch: the next ones of its endless passes, each in its own order."""
        place, end = epoch * count, (epoch + 1) * count
        found, passes = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        while place < end:
            turn, within = divmod(place, self.size)
            taken = min(self.size - within, end - place)
            order = np.random.default_rng([seed, *self.key, turn, 1]).permutation(self.size)[within : within + taken]
            found.append(order + self.start if self.members is None else self.members[order])
            passes.append(np.full(taken, turn))
            place += taken
        return Epoch(np.concatenate(found), np.concatenate(passes))


@dataclass(frozen=True)
class _Unit:
    """What a batch may be filled from, when it is of one source or task: the pieces of one name."""

    name: str
    pieces: list[_Piece]

    @property
    def share(self) -> float:
        return sum(piece.share for piece in self.pieces)

    @property
    def size(self) -> int:
        return sum(piece.size for piece in self.pieces)

    def taken(self, count: int, seed: int, epoch: int) -> Epoch:
        """Of each piece its share of `count` rows."""
        whole = self.share
        counts = quotas([piece.share / whole for piece in self.pieces], count) if whole else [0] * len(self.pieces)
        taken = [piece.taken(one, seed, epoch) for piece, one in zip(self.pieces, counts, strict=True)]
        return Epoch(*(np.concatenate(arrays) for arrays in zip(*taken, strict=True)))


def check_batches(rows: Sequence[Row], size: int, where: str = "mixture") -> None:
    """Refuse batches of one source or task where one has fewer rows than a batch.

    Raises:
        InputError: the key, and which it is.
    """
    if isinstance(rows, MixedRows) and (rows.one_source_batches or rows.one_task_batches):
        _check_units(rows, _units(rows, _shares(rows)), size, where)


def _check_units(rows: MixedRows, units: Sequence[_Unit], size: int, where: str = "mixture") -> None:
    key = "one_task_batches" if rows.one_task_batches else "one_source_batches"
    small = next((unit for unit in units if unit.share and unit.size < size), None)
    if small is not None:
        raise InputError(f"{where}.{key}: {small.name} has {small.size} rows, a batch {size}; use smaller batches")


def _shares(rows: MixedRows) -> list[float]:
    return [len(part.rows) / len(rows) if part.share is None else part.share for part in rows.parts]


def _whole_parts(rows: MixedRows, shares: Sequence[float]) -> list[_Piece]:
    return [
        _Piece((number,), len(part.rows), share, rows.starts[number])
        for number, (part, share) in enumerate(zip(rows.parts, shares, strict=True))
    ]


def _units(rows: MixedRows, shares: Sequence[float]) -> list[_Unit]:
    """Sources; or tasks, with a piece of each source that has it; or the tasks of each source apart."""
    if not rows.one_task_batches:
        whole = _whole_parts(rows, shares)
        return [_Unit(f"source {part.name!r}", [piece]) for part, piece in zip(rows.parts, whole, strict=True)]
    tasks_R = group_numbers(rows, "task")
    found: dict[tuple[int, ...], _Unit] = {}
    for number, (part, share) in enumerate(zip(rows.parts, shares, strict=True)):
        own_R = tasks_R[rows.starts[number] : rows.starts[number + 1]]
        for task in np.unique(own_R).tolist():
            members = np.flatnonzero(own_R == task) + rows.starts[number]
            name = "what has no task" if task < 0 else f"task {rows[int(members[0])].task!r}"
            if rows.one_source_batches:
                name = f"{name} of source {part.name!r}"
            unit = found.setdefault((task, number) if rows.one_source_batches else (task,), _Unit(name, []))
            piece_share = share * len(members) / len(own_R)
            unit.pieces.append(_Piece((number, task + 1), len(members), piece_share, members=members))
    return [found[key] for key in sorted(found)]
