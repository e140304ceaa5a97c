"""No text twice in a batch: rows of an equal query or positive change places with rows of later batches.

A duplicate is no negative, so it is left out of its batch's softmax anyway; where it stands, a negative is missing.

Rows are not read for this, whatever their number: texts are told by hashes (`data.batching.row_hashes`), and rows with
the same repeated texts are of one *kind*, so that whether a later place is free to change with is one look into an
array.

Shapes: R rows, E places of an epoch, K kinds, T repeated texts, P pairs of a row and a repeated text that it has.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gemma4vec.data.batching.epoch_order import Epoch
from gemma4vec.data.batching.mixture import MixedRows, group_numbers
from gemma4vec.data.batching.row_hashes import repeats
from gemma4vec.data.rows.rows import Row

# So many places behind a batch are looked at for one to change with.
WINDOW = 2**16
_FIRST_LOOK = 256

Ints = NDArray[np.int64]


class DuplicateSpreader:
    """Spreads rows of equal texts over the batches of an epoch.

    Row by row: what has a query or a positive that its batch has already changes places with the next later row that
    shares none with that batch. Batches of one source or task stay so. What finds no place (at an epoch's end, where a
    text makes up more rows than there are batches, within `WINDOW` places) stays where it is.

    Args:
        rows: all rows.
    """

    def __init__(self, rows: Sequence[Row]):
        self._units_R, self._units = _units(rows)
        self._repeats = repeats(rows)

    def spread(self, order: Epoch, size: int) -> Epoch:
        """The same rows in nearly the same order, without equal texts in a batch of `size`."""
        numbers, passes = order.rows.copy(), order.passes.copy()
        kinds = self._kinds(numbers)
        kind_E = kinds.of_row[numbers]
        later = _Later(kinds, kind_E, size)
        for start in range(0, len(numbers) - size + 1, size):
            later.move(start)
            # Rows without a repeated text come in nobody's way.
            busy = (np.flatnonzero(kind_E[start : start + size] >= kinds.units) + start).tolist()
            seen: set[int] = set()
            for turn, place in enumerate(busy if len(busy) > 1 else ()):
                own = kinds.texts(kind_E[place])
                if not seen.isdisjoint(own):
                    rest = (kinds.texts(kind_E[after]) for after in busy[turn + 1 :])
                    other = later.first(seen.union(*rest), int(kinds.unit[kind_E[place]]))
                    if other is not None:
                        later.count(int(kind_E[place]), int(kind_E[other]))
                        for array in (numbers, passes, kind_E):
                            array[[place, other]] = array[[other, place]]
                        own = kinds.texts(kind_E[place])
                seen.update(own)
        return Epoch(numbers, passes)

    def _kinds(self, numbers: Ints) -> "_Kinds":
        """The kinds of the rows of an epoch; a row that stands in it several times is a duplicate of itself."""
        twice = np.flatnonzero(np.bincount(numbers, minlength=1) > 1)
        rows_P = np.concatenate([self._repeats.rows_P, twice])
        texts_P = np.concatenate([self._repeats.texts_P, self._repeats.texts + np.arange(len(twice))])
        order = np.argsort(rows_P, kind="stable")
        rows_P, texts_P = rows_P[order], texts_P[order]
        busy, begin = np.unique(rows_P, return_index=True)
        # Equal sets of texts have equal sums of hashes; of millions of sets, two others have with probability 1e-6.
        names = _mixed(self._units_R[busy].astype(np.uint64) + (np.uint64(1) << np.uint64(63)))
        if len(busy):
            names += np.add.reduceat(_mixed(texts_P.astype(np.uint64)), begin)
        _, example, kind = np.unique(names, return_index=True, return_inverse=True)
        ends = np.append(begin[1:], len(rows_P))
        of_row = self._units_R.copy()
        of_row[busy] = self._units + kind
        unit = np.concatenate([np.arange(self._units), self._units_R[busy[example]]])
        return _Kinds.of(of_row, self._units, unit, texts_P, begin[example], ends[example])


class _Kinds(NamedTuple):
    """What rows have of repeated texts. The first kinds are of the units' rows that have none.

    Attributes:
        of_row: number of each row's kind: `int32[R]`.
        units: what batches may be filled from, so many.
        unit: of each kind: `int64[K]`.
        texts_P, begin, end: texts of kind `units + n` are `texts_P[begin[n]:end[n]]`.
        by_text, first: kinds that have text t are `by_text[first[t]:first[t + 1]]`.
    """

    of_row: NDArray[np.int32]
    units: int
    unit: Ints
    texts_P: Ints
    begin: Ints
    end: Ints
    by_text: Ints
    first: Ints

    @classmethod
    def of(cls, of_row: NDArray[np.int32], units: int, unit: Ints, texts_P: Ints, begin: Ints, end: Ints) -> "_Kinds":
        sizes = end - begin
        within = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        texts = texts_P[np.repeat(begin, sizes) + within]
        order = np.argsort(texts, kind="stable")
        by_text = np.repeat(np.arange(len(sizes)), sizes)[order] + units
        count = int(texts.max()) + 1 if len(texts) else 0
        first = np.searchsorted(texts[order], np.arange(count + 1))
        return cls(of_row, units, unit, texts_P, begin, end, by_text, first)

    def texts(self, kind: int) -> list[int]:
        """Numbers of the repeated texts of a kind."""
        number = int(kind) - self.units
        return [] if number < 0 else self.texts_P[self.begin[number] : self.end[number]].tolist()

    def having(self, texts: Iterable[int]) -> Ints:
        """The kinds that have any of these texts, each once."""
        found = [self.by_text[self.first[text] : self.first[text + 1]] for text in texts]
        return np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)


class _Later:
    """The places behind a batch, and how many of them are of each kind and unit."""

    def __init__(self, kinds: _Kinds, kind_E: NDArray[np.int32], size: int):
        self._kinds, self._kind_E, self._size = kinds, kind_E, size
        self._start = 0
        self._left_K = np.bincount(kind_E, minlength=len(kinds.unit))
        self._left_units = np.bincount(kinds.unit[kind_E], minlength=kinds.units)
        self._unit, self._fits_K = -1, np.empty(0, np.bool_)

    def move(self, start: int) -> None:
        """The batch begins here; all batches are moved to, one after the other."""
        self._start = start + self._size
        batch = self._kind_E[start : self._start]
        np.subtract.at(self._left_K, batch, 1)
        np.subtract.at(self._left_units, self._kinds.unit[batch], 1)

    def count(self, came: int, went: int) -> None:
        """A place behind the batch gets a row of one kind for that of another."""
        self._left_K[came] += 1
        self._left_K[went] -= 1

    def first(self, texts: set[int], unit: int) -> int | None:
        """The first place whose row is of the unit and has none of the texts."""
        if unit != self._unit:
            self._unit, self._fits_K = unit, self._kinds.unit == unit
        having = self._kinds.having(texts)
        having = having[self._kinds.unit[having] == unit]
        if self._left_units[unit] == self._left_K[having].sum():
            return None
        self._fits_K[having] = False
        found = self._look()
        self._fits_K[having] = True
        return found

    def _look(self) -> int | None:
        at, end, step = self._start, min(self._start + WINDOW, len(self._kind_E)), _FIRST_LOOK
        while at < end:
            fitting = self._fits_K[self._kind_E[at : min(at + step, end)]]
            place = int(fitting.argmax())
            if fitting[place]:
                return at + place
            at, step = at + step, 4 * step
        return None


def _units(rows: Sequence[Row]) -> tuple[NDArray[np.int32], int]:
    """Of each row a number of what all rows of its batch must share, and how many such there are."""
    if not isinstance(rows, MixedRows) or not (rows.one_source_batches or rows.one_task_batches):
        return np.zeros(len(rows), dtype=np.int32), 1
    units = np.zeros(len(rows), dtype=np.int64)
    if rows.one_source_batches:
        units += np.repeat(np.arange(len(rows.parts)), np.diff(rows.starts))
    if rows.one_task_batches:
        tasks = group_numbers(rows, "task") + 1
        units = units * (int(tasks.max(initial=0)) + 1) + tasks
    found, numbers = np.unique(units, return_inverse=True)
    return numbers.astype(np.int32), max(1, len(found))


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Each number's hash (splitmix64, Steele et al. 2014)."""
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
