"""Batches without duplicates: a row that repeats a query or positive of its batch swaps places with a later row.

A duplicate is a false negative and is masked in the softmax, so each one costs the batch a negative.

Rows are not read: texts are compared by hash (`data.batching.repeated_texts`). Rows with the same set of repeated texts
form one *kind*, so one array lookup tells whether a later row can be swapped in.

Shapes: R rows, E places of an epoch, K kinds, T repeated texts, P pairs of a row and a repeated text that it has.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gemma4vec.data.batching.epoch_order import Epoch
from gemma4vec.data.batching.mixture import as_mixture
from gemma4vec.data.batching.repeated_texts import find_repeated_texts
from gemma4vec.data.rows.rows import Row

# Number of places after a batch that are searched for a row to swap with.
WINDOW = 2**16
_FIRST_LOOK = 256

Ints = NDArray[np.int64]


class DuplicateSpreader:
    """Spreads rows with equal texts over the batches of an epoch.

    A row whose query or positive is in its batch already swaps places with the next later row that shares no text with
    that batch. Batches of one source or task remain so. A row stays in place if no later row within `WINDOW` places
    fits: at the end of an epoch, or if a text has more rows than there are batches.

    Args:
        rows: all rows.
    """

    def __init__(self, rows: Sequence[Row]):
        self._units_R, self._units = units_of_rows(rows)
        self._repeated = find_repeated_texts(rows)

    def spread(self, order: Epoch, size: int) -> Epoch:
        """The same rows in almost the same order, without equal texts in any batch of `size` rows if possible."""
        numbers, passes = order.rows.copy(), order.passes.copy()
        kinds = self._kinds(numbers)
        kind_E = kinds.of_row[numbers]
        later = _Later(kinds, kind_E, size)
        for start in range(0, len(numbers) - size + 1, size):
            later.move(start)
            # Rows without a repeated text conflict with no other row.
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
        """The kinds of the rows of an epoch; a row that an epoch reads twice is a duplicate of itself."""
        twice = np.flatnonzero(np.bincount(numbers, minlength=1) > 1)
        rows_P = np.concatenate([self._repeated.rows_P, twice])
        texts_P = np.concatenate([self._repeated.texts_P, self._repeated.text_count + np.arange(len(twice))])
        order = np.argsort(rows_P, kind="stable")
        rows_P, texts_P = rows_P[order], texts_P[order]
        busy, begin = np.unique(rows_P, return_index=True)
        # Equal sets of texts have equal sums of hashes. Among millions of sets, a collision has probability 1e-6.
        names = _mix(self._units_R[busy].astype(np.uint64) + (np.uint64(1) << np.uint64(63)))
        if len(busy):
            names += np.add.reduceat(_mix(texts_P.astype(np.uint64)), begin)
        _, example, kind = np.unique(names, return_index=True, return_inverse=True)
        ends = np.append(begin[1:], len(rows_P))
        of_row = self._units_R.copy()
        of_row[busy] = self._units + kind
        unit = np.concatenate([np.arange(self._units), self._units_R[busy[example]]])
        return _Kinds.of(of_row, self._units, unit, texts_P, begin[example], ends[example])


class _Kinds(NamedTuple):
    """The kinds of rows. The first `units` kinds are the rows of each unit without a repeated text.

    A unit is a set of rows that one batch may be filled from.

    Attributes:
        of_row: kind of each row: `int32[R]`.
        units: number of units.
        unit: unit of each kind: `int64[K]`.
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
        """The repeated texts of a kind."""
        number = int(kind) - self.units
        return [] if number < 0 else self.texts_P[self.begin[number] : self.end[number]].tolist()

    def having(self, texts: Iterable[int]) -> Ints:
        """The kinds that have at least one of these texts, without duplicates."""
        found = [self.by_text[self.first[text] : self.first[text + 1]] for text in texts]
        return np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)


class _Later:
    """The places after the current batch, with a count for each kind and unit."""

    def __init__(self, kinds: _Kinds, kind_E: NDArray[np.int32], size: int):
        self._kinds, self._kind_E, self._size = kinds, kind_E, size
        self._start = 0
        self._left_K = np.bincount(kind_E, minlength=len(kinds.unit))
        self._left_units = np.bincount(kinds.unit[kind_E], minlength=kinds.units)
        self._unit, self._fits_K = -1, np.empty(0, np.bool_)

    def move(self, start: int) -> None:
        """Move to the batch that starts here; batches are visited in order."""
        self._start = start + self._size
        batch = self._kind_E[start : self._start]
        np.subtract.at(self._left_K, batch, 1)
        np.subtract.at(self._left_units, self._kinds.unit[batch], 1)

    def count(self, came: int, went: int) -> None:
        """Record that a later place received a row of kind `came` for one of kind `went`."""
        self._left_K[came] += 1
        self._left_K[went] -= 1

    def first(self, texts: set[int], unit: int) -> int | None:
        """The first later place whose row belongs to the unit and has none of the texts; None if there is none."""
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


def units_of_rows(rows: Sequence[Row]) -> tuple[NDArray[np.int32], int]:
    """The unit of each row, `int32[R]`, and the number of units: the sets of rows that one batch may be filled from."""
    mixture = as_mixture(rows)
    if not (mixture.one_source_batches or mixture.one_task_batches):
        return np.zeros(len(rows), dtype=np.int32), 1
    units = np.zeros(len(rows), dtype=np.int64)
    if mixture.one_source_batches:
        units += np.repeat(np.arange(len(mixture.parts)), np.diff(mixture.starts))
    if mixture.one_task_batches:
        tasks = mixture.group_numbers("task") + 1
        units = units * (int(tasks.max(initial=0)) + 1) + tasks
    found, numbers = np.unique(units, return_inverse=True)
    return numbers.astype(np.int32), max(1, len(found))


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A hash of each number (splitmix64, Steele et al. 2014)."""
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
