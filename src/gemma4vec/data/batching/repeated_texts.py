"""Which rows share a query or a positive, found by 8-byte hashes: rows on disk are not read.

Shapes: R rows, T texts (queries and positives), P pairs of a row and a repeated text.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gemma4vec.data.rows.lazy_rows import as_lazy_rows
from gemma4vec.data.rows.rows import Row

BLOCK = 2**18


class RepeatedTexts(NamedTuple):
    """Texts that occur in several rows, or twice in one, and the rows that have them.

    Attributes:
        text_count: number of different repeated texts.
        rows_P: index of a row, ascending: `int64[P]`.
        texts_P: index of a repeated text that this row has, from 0: `int64[P]`.
    """

    text_count: int
    rows_P: NDArray[np.int64]
    texts_P: NDArray[np.int64]


def find_repeated_texts(rows: Sequence[Row]) -> RepeatedTexts:
    """Queries and positives that occur more than once."""
    hashes_T, starts = as_lazy_rows(rows).text_hashes()
    ordered_T = np.sort(hashes_T)
    shared = np.unique(ordered_T[1:][ordered_T[1:] == ordered_T[:-1]])
    del ordered_T
    rows_P, texts_P = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for start in range(0, len(hashes_T) if len(shared) else 0, BLOCK):
        block = hashes_T[start : start + BLOCK]
        place = np.minimum(np.searchsorted(shared, block), len(shared) - 1)
        hit = np.flatnonzero(shared[place] == block)
        rows_P.append(np.searchsorted(starts, hit + start, side="right") - 1)
        texts_P.append(place[hit])
    return RepeatedTexts(len(shared), np.concatenate(rows_P), np.concatenate(texts_P))
