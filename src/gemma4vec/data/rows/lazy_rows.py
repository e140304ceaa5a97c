"""Rows that are made on access, and the questions that callers ask about all rows at once.

The base class answers each question by reading row after row. A kind of rows that knows the answer without reading
(a store, a file of tensors) overrides the method, so callers never test for a kind.

Shapes: R rows, T texts (queries and positives).
"""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from gemma4vec.data.rows.row_texts import RowTexts, TextKind, TextsInMemory
from gemma4vec.data.rows.rows import Row
from gemma4vec.text.text_hash import text_key

# Salt for the hashes of positives: the same text as a query and as a positive is not a duplicate.
POSITIVE = np.int64(0x5BD1E9955BD1E995)

NameKind = Literal["group", "task"]


class RowHashes(NamedTuple):
    """Hashes of each row's query and positives, with case and white space folded (`text.text_hash`).

    Attributes:
        hashes_T: `int64[T]`, row after row; in a row the query comes first. Positives are salted with `POSITIVE`.
        starts: position of each row's first hash, and T at the end: `int64[R + 1]`.
    """

    hashes_T: NDArray[np.int64]
    starts: NDArray[np.int64]


class RowNames(NamedTuple):
    """The groups or tasks of rows.

    Attributes:
        numbers_R: index into `names` for each row, -1 for a row without a name: `int64[R]`.
        names: every name once.
    """

    numbers_R: NDArray[np.int64]
    names: list[str]


class LazyRows(Sequence[Row]):
    """A sequence of rows, each made when it is read.

    Attributes:
        size: number of rows.
        on_disk: whether the rows stay on disk, so that reading all of them is slow.
        tokenized: whether every text is a `PretokenizedText` already.
    """

    size: int
    on_disk: bool = False
    tokenized: bool = False

    @abstractmethod
    def row(self, number: int) -> Row:
        """Row `number`, from 0 and below `size`."""

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.size))]
        number = index + self.size if index < 0 else index
        if not 0 <= number < self.size:
            raise IndexError(f"row {index} of {self.size}")
        return self.row(number)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(one == two for one, two in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def positive_counts(self) -> NDArray[np.int64]:
        """Number of positives of each row: `int64[R]`."""
        return np.fromiter((len(row.pos) for row in self), dtype=np.int64, count=len(self))

    def negative_counts(self) -> NDArray[np.int64]:
        """Number of negatives of each row: `int64[R]`."""
        return np.fromiter((len(row.neg) for row in self), dtype=np.int64, count=len(self))

    def has_scores(self) -> NDArray[np.bool_]:
        """Whether each row has a teacher's scores: `bool[R]`."""
        return np.fromiter((row.scores is not None for row in self), dtype=np.bool_, count=len(self))

    def names(self, kind: NameKind) -> RowNames:
        """The groups or tasks of all rows, in order of first appearance."""
        known: dict[str | None, int] = {None: -1}
        found = (known.setdefault(getattr(row, kind), len(known) - 1) for row in self)
        numbers_R = np.fromiter(found, dtype=np.int64, count=len(self))
        return RowNames(numbers_R, [name for name in known if name is not None])

    def group_numbers(self, kind: NameKind = "group") -> NDArray[np.int64]:
        """A number for each row's group or task: equal for equal names, -1 for none: `int64[R]`."""
        return self.names(kind).numbers_R

    def source_names(self, numbers: Iterable[int]) -> list[str]:
        """The source of each of these rows; empty if the rows do not come from named sources."""
        return []

    def source_spans(self) -> list[tuple[str, slice]]:
        """Each named source with the slice of its rows; empty as for `source_names`."""
        return []

    def text_hashes(self) -> RowHashes:
        """Hashes of all queries and positives."""
        starts = [0]
        hashes: list[int] = []
        for row in self:
            hashes += [text_key(row.query), *(text_key(document) ^ int(POSITIVE) for document in row.pos)]
            starts.append(len(hashes))
        return RowHashes(np.array(hashes, dtype=np.int64), np.array(starts, dtype=np.int64))

    def texts(self, which: TextKind) -> RowTexts:
        """The texts of all rows."""
        return TextsInMemory(self, which)


class RowList(LazyRows):
    """Rows in memory."""

    def __init__(self, rows: Sequence[Row]):
        self._rows, self.size = rows, len(rows)

    def row(self, number: int) -> Row:
        return self._rows[number]


def as_lazy_rows(rows: Sequence[Row]) -> LazyRows:
    """The same rows with the methods of `LazyRows`; a plain list is wrapped, not copied."""
    return rows if isinstance(rows, LazyRows) else RowList(rows)
