"""Rows that are made when they are asked for, wherever they lie: a sequence for those who read them."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import overload

from gemma4vec.data.rows.rows import Row


class LazyRows(Sequence[Row]):
    """A sequence of rows that says how to make one.

    Attributes:
        size: how many there are.
    """

    size: int

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
