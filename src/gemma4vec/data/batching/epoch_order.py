"""The order of an epoch: every row once, or a share from each source; on request, batches of one source or task.

The order depends on seed and epoch alone. Interruptions and the number of processes do not change it: batch number n
has the same rows everywhere, and each process takes its part of the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gemma4vec.data.batching.mixture import MixedRows, as_mixture, quotas
from gemma4vec.data.rows.rows import Row
from gemma4vec.errors import InputError


class Epoch(NamedTuple):
    """Row indices in the order of an epoch, and for each the pass over its source: both `int64[E]`."""

    rows: NDArray[np.int64]
    passes: NDArray[np.int64]


def epoch_order(rows: Sequence[Row], *, size: int, seed: int, epoch: int, group_rows: int = 1) -> Epoch:
    """The rows of an epoch. The caller cuts them into batches of `size` and drops the incomplete last one.

    An epoch has one place for each row of the data. A source with a share fills that share of places. It continues
    where the previous epoch ended, and starts a new pass in a new order after its last row.

    Raises:
        InputError: a source or task that must fill whole batches has fewer rows than one batch.
    """
    mixture = as_mixture(rows)
    groups = mixture.group_numbers() if group_rows > 1 else None
    generator = np.random.default_rng([seed, epoch])
    if not mixture.mixed:
        order = shuffled(len(rows), groups, generator, group_rows)
        return Epoch(order, np.broadcast_to(np.int64(epoch), order.shape))  # a view: takes no memory
    shares = _shares(mixture)
    if not mixture.one_source_batches and not mixture.one_task_batches:
        found = _Unit("", _whole_parts(mixture, shares)).take(len(rows), seed, epoch)
        order = shuffled(len(found.rows), None if groups is None else groups[found.rows], generator, group_rows)
        return Epoch(found.rows[order], found.passes[order])
    units = _units(mixture, shares)
    _check_units(mixture, units, size)
    counts = [count * size for count in quotas([unit.share for unit in units], len(rows) // size)]
    batches: list[Epoch] = []
    for unit, count in zip(units, counts, strict=True):
        found = unit.take(count, seed, epoch)
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
    """All numbers below `count`, shuffled. With groups: shuffled runs of up to `group_rows` rows of one group."""
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
    """Rows that are read in passes of their own: those of a source, or of one task in a source.

    Attributes:
        key: seed of the order of its passes.
        size: number of rows.
        share: share of the epoch's rows.
        start: index of the first row, if the rows are consecutive.
        members: indices of the rows, if they are not.
    """

    key: tuple[int, ...]
    size: int
    share: float
    start: int = 0
    members: NDArray[np.int64] | None = None

    def take(self, count: int, seed: int, epoch: int) -> Epoch:
        """The next `count` rows of its endless passes; each pass has its own order."""
        place, end = epoch * count, (epoch + 1) * count
        found, passes = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        while place < end:
            turn, within = divmod(place, self.size)
            size = min(self.size - within, end - place)
            order = np.random.default_rng([seed, *self.key, turn, 1]).permutation(self.size)[within : within + size]
            found.append(order + self.start if self.members is None else self.members[order])
            passes.append(np.full(size, turn))
            place += size
        return Epoch(np.concatenate(found), np.concatenate(passes))


@dataclass(frozen=True)
class _Unit:
    """The pieces that one batch may be filled from, if batches have one source or one task."""

    name: str
    pieces: list[_Piece]

    @property
    def share(self) -> float:
        return sum(piece.share for piece in self.pieces)

    @property
    def size(self) -> int:
        return sum(piece.size for piece in self.pieces)

    def take(self, count: int, seed: int, epoch: int) -> Epoch:
        """`count` rows, divided among the pieces by their shares."""
        whole = self.share
        counts = quotas([piece.share / whole for piece in self.pieces], count) if whole else [0] * len(self.pieces)
        parts = [piece.take(one, seed, epoch) for piece, one in zip(self.pieces, counts, strict=True)]
        return Epoch(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def check_batches(rows: Sequence[Row], size: int, where: str = "mixture") -> None:
    """Check that every source or task that must fill whole batches has enough rows for one.

    Raises:
        InputError: names the recipe key and the source or task.
    """
    mixture = as_mixture(rows)
    if mixture.one_source_batches or mixture.one_task_batches:
        _check_units(mixture, _units(mixture, _shares(mixture)), size, where)


def _check_units(rows: MixedRows, units: Sequence[_Unit], size: int, where: str = "mixture") -> None:
    key = "one_task_batches" if rows.one_task_batches else "one_source_batches"
    small = next((unit for unit in units if unit.share and unit.size < size), None)
    if small is not None:
        raise InputError(
            f"{where}.{key}: {small.name} has {small.size} rows, a batch needs {size}; use smaller batches"
        )


def _shares(rows: MixedRows) -> list[float]:
    return [len(part.rows) / len(rows) if part.share is None else part.share for part in rows.parts]


def _whole_parts(rows: MixedRows, shares: Sequence[float]) -> list[_Piece]:
    return [
        _Piece((number,), len(part.rows), share, rows.starts[number])
        for number, (part, share) in enumerate(zip(rows.parts, shares, strict=True))
    ]


def _units(rows: MixedRows, shares: Sequence[float]) -> list[_Unit]:
    """One unit for each source; or for each task, with a piece of every source; or for each task of each source."""
    if not rows.one_task_batches:
        whole = _whole_parts(rows, shares)
        return [_Unit(f"source {part.name!r}", [piece]) for part, piece in zip(rows.parts, whole, strict=True)]
    tasks_R = rows.group_numbers("task")
    found: dict[tuple[int, ...], _Unit] = {}
    for number, (part, share) in enumerate(zip(rows.parts, shares, strict=True)):
        own_R = tasks_R[rows.starts[number] : rows.starts[number + 1]]
        for task in np.unique(own_R).tolist():
            members = np.flatnonzero(own_R == task) + rows.starts[number]
            name = "the set of rows without a task" if task < 0 else f"task {rows[int(members[0])].task!r}"
            if rows.one_source_batches:
                name = f"{name} of source {part.name!r}"
            unit = found.setdefault((task, number) if rows.one_source_batches else (task,), _Unit(name, []))
            piece_share = share * len(members) / len(own_R)
            unit.pieces.append(_Piece((number, task + 1), len(members), piece_share, members=members))
    return [found[key] for key in sorted(found)]
