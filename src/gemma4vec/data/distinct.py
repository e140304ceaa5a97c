"""No text twice in a batch: rows of an equal query or positive change places with rows of later batches.

A duplicate is no negative, so it is left out of its batch's softmax anyway; where it stands, a negative is missing.
"""

from collections.abc import Sequence

import numpy as np

from gemma4vec.data.mixture import MixedRows
from gemma4vec.data.order import Epoch
from gemma4vec.data.rows import Row


def spread_duplicates(order: Epoch, rows: Sequence[Row], size: int) -> Epoch:
    """The same rows in nearly the same order, without equal texts in a batch of `size`.

    Row by row: what has a query or a positive that its batch has already changes places with the next later row that
    shares none with that batch. Batches of one source or task stay so. What finds no place (at an epoch's end, or where
    a text makes up more rows than there are batches) stays where it is.
    """
    numbers, passes = order.rows.copy(), order.passes.copy()
    shown = np.unique(numbers).tolist()
    texts = {number: _texts(rows[number]) for number in shown}
    unit = _units(rows, shown)
    for start in range(0, len(numbers) - size + 1, size):
        seen: set[str] = set()
        for place in range(start, start + size):
            if seen & texts[int(numbers[place])]:
                rest = (texts[int(number)] for number in numbers[place + 1 : start + size])
                other = _next(numbers, start + size, seen.union(*rest), texts, unit, int(numbers[place]))
                if other is not None:
                    numbers[[place, other]] = numbers[[other, place]]
                    passes[[place, other]] = passes[[other, place]]
            seen |= texts[int(numbers[place])]
    return Epoch(numbers, passes)


def _next(
    numbers: np.ndarray, start: int, others: set[str], texts: dict[int, set[str]], unit: dict[int, object], row: int
) -> int | None:
    """The first place from `start` on whose row has no text of the others (and is of the same unit)."""
    for place in range(start, len(numbers)):
        other = int(numbers[place])
        if unit.get(other) == unit.get(row) and not others & texts[other]:
            return place
    return None


def _units(rows: Sequence[Row], shown: Sequence[int]) -> dict[int, object]:
    """Of each row what all rows of its batch must share; empty where batches are mixed."""
    if not isinstance(rows, MixedRows) or not (rows.one_source_batches or rows.one_task_batches):
        return {}
    by_source, by_task = rows.one_source_batches, rows.one_task_batches
    return {n: (rows.part_of(n) if by_source else 0, rows[n].task if by_task else None) for n in shown}


def _texts(row: Row) -> set[str]:
    """Query and positives, case and white space folded, told apart by what they are."""
    folded = {"q " + " ".join(row.query.lower().split())}
    return folded | {"p " + " ".join(f"{document.title or ''} {document.text}".lower().split()) for document in row.pos}
