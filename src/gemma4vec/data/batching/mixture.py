"""Rows of several sources as one list, and the order in which an epoch takes them.

The order of an epoch depends on seed and epoch alone: not on when training was interrupted, nor on how many processes
share the work (batch number n is the same rows everywhere; a process takes its part of it).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gemma4vec.data.rows.lazy_rows import LazyRows
from gemma4vec.data.rows.row_store import StoredRows
from gemma4vec.data.rows.rows import Row
from gemma4vec.data.sources.tensor_rows import TensorRows


@dataclass(frozen=True)
class Part:
    """The rows of one source; `share` of the training rows are its own (None: as many as it has)."""

    name: str
    rows: Sequence[Row]
    share: float | None = None


class MixedRows(LazyRows):
    """The rows of all parts, one after the other.

    Attributes:
        parts: the sources.
        one_source_batches: all rows of a batch come from one part.
        one_task_batches: all rows of a batch are of one task.
        starts: number of the first row of each part, and one more.
    """

    def __init__(self, parts: Sequence[Part], one_source_batches: bool = False, one_task_batches: bool = False):
        self.parts = tuple(parts)
        self.one_source_batches = one_source_batches
        self.one_task_batches = one_task_batches
        self.starts = [0, *accumulate(len(part.rows) for part in self.parts)]
        self.size = self.starts[-1]

    @property
    def mixed(self) -> bool:
        """Whether an epoch is anything else than every row once, in one shuffled order."""
        return self.one_source_batches or self.one_task_batches or any(part.share is not None for part in self.parts)

    def part_of(self, index: int) -> int:
        """Number of the part that a row belongs to."""
        return int(np.searchsorted(self.starts, index, side="right")) - 1

    def row(self, number: int) -> Row:
        part = self.part_of(number)
        return self.parts[part].rows[number - self.starts[part]]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(one == two for one, two in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]


def shares_of(counts: Sequence[int], weights: Sequence[float | None], temperature: float | None) -> list[float | None]:
    """The share of each source: its weight, or n^(1/temperature) (Raffel et al. 2020, arXiv:1910.10683, section 3.5.2).

    Without weights and temperature there are none: every row is read once an epoch.
    """
    if temperature is not None:
        raw = [count ** (1.0 / temperature) for count in counts]
    elif any(weight is not None for weight in weights):
        raw = [weight or 0.0 for weight in weights]
    else:
        return [None] * len(counts)
    return [value / sum(raw) for value in raw]


def quotas(shares: Sequence[float], total: int) -> list[int]:
    """Whole numbers in these shares that sum to `total`, by largest remainders."""
    exact = [share * total for share in shares]
    whole = [int(value) for value in exact]
    by_remainder = sorted(range(len(shares)), key=lambda i: (whole[i] - exact[i], i))
    for i in by_remainder[: total - sum(whole)]:
        whole[i] += 1
    return whole


def negative_counts(rows: Sequence[Row]) -> NDArray[np.int64]:
    """How many negatives each row has, without making the rows of a store: `int64[R]`."""
    if isinstance(rows, MixedRows):
        return np.concatenate([negative_counts(part.rows) for part in rows.parts] or [np.empty(0, np.int64)])
    if isinstance(rows, StoredRows):
        return rows.negative_counts()
    if isinstance(rows, TensorRows):
        return np.zeros(len(rows), dtype=np.int64)
    return np.fromiter((len(row.neg) for row in rows), dtype=np.int64, count=len(rows))


def positive_counts(rows: Sequence[Row]) -> NDArray[np.int64]:
    """How many positives each row has, without making the rows of a store: `int64[R]`."""
    if isinstance(rows, MixedRows):
        return np.concatenate([positive_counts(part.rows) for part in rows.parts] or [np.empty(0, np.int64)])
    if isinstance(rows, StoredRows):
        return rows.positive_counts()
    if isinstance(rows, TensorRows):
        return np.full(len(rows), int(rows.pair_with_itself), dtype=np.int64)
    return np.fromiter((len(row.pos) for row in rows), dtype=np.int64, count=len(rows))


def scored(rows: Sequence[Row]) -> NDArray[np.bool_]:
    """Whether a row has a teacher's scores, without making the rows of a store: `bool[R]`."""
    if isinstance(rows, MixedRows):
        return np.concatenate([scored(part.rows) for part in rows.parts] or [np.empty(0, np.bool_)])
    if isinstance(rows, StoredRows):
        return rows.scored()
    if isinstance(rows, TensorRows):
        return np.zeros(len(rows), dtype=np.bool_)
    return np.fromiter((row.scores is not None for row in rows), dtype=np.bool_, count=len(rows))


def group_numbers(rows: Sequence[Row], kind: Literal["group", "task"] = "group") -> NDArray[np.int64]:
    """A number for each row's group (or task), the same for equal names, -1 for none: `int64[R]`."""
    if isinstance(rows, StoredRows):
        return rows.group_numbers() if kind == "group" else rows.task_numbers()
    numbers: dict[str | None, int] = {None: -1}
    if isinstance(rows, MixedRows):
        found = []
        for part in rows.parts:
            if isinstance(part.rows, StoredRows):
                names = [None, *part.rows.facts[f"{kind}_names"]]
                table = np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)
                found.append(table[group_numbers(part.rows, kind) + 1])
            elif isinstance(part.rows, TensorRows):
                found.append(np.full(len(part.rows), -1, dtype=np.int64))
            else:
                found.append(_numbered(part.rows, numbers, kind))
        return np.concatenate(found or [np.empty(0, np.int64)])
    return _numbered(rows, numbers, kind)


def _numbered(rows: Sequence[Row], numbers: dict[str | None, int], kind: str) -> NDArray[np.int64]:
    found = (numbers.setdefault(getattr(row, kind), len(numbers)) for row in rows)
    return np.fromiter(found, dtype=np.int64, count=len(rows))
