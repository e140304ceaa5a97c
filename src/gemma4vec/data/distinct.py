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
    has none. Batches of one source stay so. What finds no place (at an epoch's end, or where a text makes up more rows
    than there are batches) stays where it is.
    """
    numbers, passes = order.rows.copy(), order.passes.copy()
    texts = {number: _texts(rows[number]) for number in np.unique(numbers).tolist()}
    within = isinstance(rows, MixedRows) and rows.one_source_batches
    for start in range(0, len(numbers) - size + 1, size):
        seen: set[str] = set()
        for place in range(start, start + size):
            if seen & texts[int(numbers[place])]:
                other = _next(numbers, start + size, seen, texts, rows if within else None, int(numbers[place]))
                if other is not None:
                    numbers[[place, other]] = numbers[[other, place]]
                    passes[[place, other]] = passes[[other, place]]
            seen |= texts[int(numbers[place])]
    return Epoch(numbers, passes)


def _next(
    numbers: np.ndarray, start: int, seen: set[str], texts: dict[int, set[str]], rows: Sequence[Row] | None, row: int
) -> int | None:
    """The first place from `start` on whose row has no text that was seen (and comes from the same source)."""
    for place in range(start, len(numbers)):
        other = int(numbers[place])
        same_source = not isinstance(rows, MixedRows) or rows.part_of(other) == rows.part_of(row)
        if same_source and not seen & texts[other]:
            return place
    return None


def _texts(row: Row) -> set[str]:
    """Query and positives, case and white space folded, told apart by what they are."""
    folded = {"q " + " ".join(row.query.lower().split())}
    return folded | {"p " + " ".join(f"{document.title or ''} {document.text}".lower().split()) for document in row.pos}
