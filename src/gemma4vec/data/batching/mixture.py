"""Rows of several sources as one sequence, with the share that each source has of an epoch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from gemma4vec.data.rows.lazy_rows import LazyRows, NameKind, RowHashes, RowNames, as_lazy_rows
from gemma4vec.data.rows.rows import Row


@dataclass(frozen=True)
class Part:
    """The rows of one source, and its share of an epoch's rows; None: every row once."""

    name: str
    rows: Sequence[Row]
    share: float | None = None


class MixedRows(LazyRows):
    """The rows of all parts, one part after the other.

    Attributes:
        parts: the sources.
        one_source_batches: all rows of a batch come from one part.
        one_task_batches: all rows of a batch have the same task.
        starts: index of each part's first row, and the number of rows at the end.
    """

    def __init__(self, parts: Sequence[Part], one_source_batches: bool = False, one_task_batches: bool = False):
        self.parts = tuple(parts)
        self.one_source_batches = one_source_batches
        self.one_task_batches = one_task_batches
        self.starts = [0, *accumulate(len(part.rows) for part in self.parts)]
        self.size = self.starts[-1]
        self._lazy = [as_lazy_rows(part.rows) for part in self.parts]

    @property
    def mixed(self) -> bool:
        """Whether shares or batches of one source or task apply; without them an epoch is every row once, shuffled."""
        return self.one_source_batches or self.one_task_batches or any(part.share is not None for part in self.parts)

    def part_of(self, index: int) -> int:
        """Index of the part that a row belongs to."""
        return int(np.searchsorted(self.starts, index, side="right")) - 1

    def row(self, number: int) -> Row:
        part = self.part_of(number)
        return self.parts[part].rows[number - self.starts[part]]

    def positive_counts(self) -> NDArray[np.int64]:
        return np.concatenate([np.empty(0, np.int64), *(part.positive_counts() for part in self._lazy)])

    def negative_counts(self) -> NDArray[np.int64]:
        return np.concatenate([np.empty(0, np.int64), *(part.negative_counts() for part in self._lazy)])

    def has_scores(self) -> NDArray[np.bool_]:
        return np.concatenate([np.empty(0, np.bool_), *(part.has_scores() for part in self._lazy)])

    def names(self, kind: NameKind) -> RowNames:
        known: dict[str, int] = {}
        found = [np.empty(0, np.int64)]
        for part in self._lazy:
            numbers, names = part.names(kind)
            table = np.array([*(known.setdefault(name, len(known)) for name in names), -1], dtype=np.int64)
            found.append(table[numbers])  # -1, no name, is the table's last entry
        return RowNames(np.concatenate(found), list(known))

    def group_numbers(self, kind: NameKind = "group") -> NDArray[np.int64]:
        """As `LazyRows.group_numbers`, but from 1: these numbers seed the order of batches of one task."""
        numbers = self.names(kind).numbers_R
        return np.where(numbers < 0, -1, numbers + 1)

    def source_names(self, numbers: Iterable[int]) -> list[str]:
        return [self.parts[self.part_of(number)].name for number in numbers]

    def source_spans(self) -> list[tuple[str, slice]]:
        ends = self.starts[1:]
        return [(part.name, slice(*span)) for part, *span in zip(self.parts, self.starts, ends, strict=False)]

    def text_hashes(self) -> RowHashes:
        parts = [part.text_hashes() for part in self._lazy]
        begins = np.cumsum([0, *(len(part.hashes_T) for part in parts)])
        starts = [part.starts[:-1] + begin for part, begin in zip(parts, begins, strict=False)]
        hashes = [np.empty(0, np.int64), *(part.hashes_T for part in parts)]
        return RowHashes(np.concatenate(hashes), np.concatenate([*starts, begins[-1:]]))


def as_mixture(rows: Sequence[Row]) -> MixedRows:
    """Rows as a mixture; rows that are none become its only part."""
    return rows if isinstance(rows, MixedRows) else MixedRows([Part("", rows)])


def compute_shares(
    counts: Sequence[int], weights: Sequence[float | None], temperature: float | None
) -> list[float | None]:
    """The share of each source: its weight, or n^(1/temperature) (Raffel et al. 2020, arXiv:1910.10683, section 3.5.2).

    All are None without weights and temperature: every row is read once an epoch.
    """
    if temperature is not None:
        raw = [count ** (1.0 / temperature) for count in counts]
    elif any(weight is not None for weight in weights):
        raw = [weight or 0.0 for weight in weights]
    else:
        return [None] * len(counts)
    return [value / sum(raw) for value in raw]


def quotas(shares: Sequence[float], total: int) -> list[int]:
    """Integers in these proportions that sum to `total`, by the largest-remainder method."""
    exact = [share * total for share in shares]
    whole = [int(value) for value in exact]
    by_remainder = sorted(range(len(shares)), key=lambda i: (whole[i] - exact[i], i))
    for i in by_remainder[: total - sum(whole)]:
        whole[i] += 1
    return whole
