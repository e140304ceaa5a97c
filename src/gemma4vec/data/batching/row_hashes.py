"""Which texts of rows are equal, from 8 bytes a text: rows on disk are not read for it.

Shapes: R rows, T texts (queries and positives).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gemma4vec.data.batching.mixture import MixedRows
from gemma4vec.data.rows.row_store import StoredRows
from gemma4vec.data.rows.rows import Row
from gemma4vec.data.sources.tensor_rows import TensorRows
from gemma4vec.text.text_hash import text_key

BLOCK = 2**18
# What a positive's hash is mixed with: a query and a positive of the same words are no duplicates of each other.
POSITIVE = np.int64(0x5BD1E9955BD1E995)


class RowKeys(NamedTuple):
    """Hashes of each row's query and positives.

    Attributes:
        keys_T: `int64[T]`, row after row, a row's query first.
        starts: where each row begins, and the end: `int64[R + 1]`.
    """

    keys_T: NDArray[np.int64]
    starts: NDArray[np.int64]


class Repeats(NamedTuple):
    """Texts that stand in several rows (or twice in one), each with a number from 0, and who has them.

    Attributes:
        texts: how many such texts there are.
        rows_P: number of a row: `int64[P]`, ascending.
        texts_P: number of a text that it has: `int64[P]`.
    """

    texts: int
    rows_P: NDArray[np.int64]
    texts_P: NDArray[np.int64]


def repeats(rows: Sequence[Row]) -> Repeats:
    """Queries that several rows share, and positives."""
    keys_T, starts = row_keys(rows)
    ordered_T = np.sort(keys_T)
    shared = np.unique(ordered_T[1:][ordered_T[1:] == ordered_T[:-1]])
    del ordered_T
    rows_P, texts_P = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for start in range(0, len(keys_T) if len(shared) else 0, BLOCK):
        block = keys_T[start : start + BLOCK]
        place = np.minimum(np.searchsorted(shared, block), len(shared) - 1)
        hit = np.flatnonzero(shared[place] == block)
        rows_P.append(np.searchsorted(starts, hit + start, side="right") - 1)
        texts_P.append(place[hit])
    return Repeats(len(shared), np.concatenate(rows_P), np.concatenate(texts_P))


def row_keys(rows: Sequence[Row]) -> RowKeys:
    """Hashes of the queries and positives of rows, case and white space folded (`text.text_hash`)."""
    if isinstance(rows, MixedRows):
        parts = [row_keys(part.rows) for part in rows.parts] or [RowKeys(np.empty(0, np.int64), np.zeros(1, np.int64))]
        before = np.cumsum([0, *(len(part.keys_T) for part in parts)])
        starts = [part.starts[:-1] + start for part, start in zip(parts, before, strict=False)]
        return RowKeys(np.concatenate([part.keys_T for part in parts]), np.concatenate([*starts, before[-1:]]))
    if isinstance(rows, StoredRows):
        return _of_store(rows)
    if isinstance(rows, TensorRows):
        keys_R, each = rows.keys(), 2 if rows.pair_with_itself else 1
        found = np.stack([keys_R, keys_R ^ POSITIVE], axis=1)[:, :each]
        return RowKeys(found.reshape(-1), np.arange(0, each * len(rows) + 1, each))
    counts = [0]
    keys: list[int] = []
    for row in rows:
        keys += [text_key(row.query), *(text_key(document) ^ int(POSITIVE) for document in row.pos)]
        counts.append(len(keys))
    return RowKeys(np.array(keys, dtype=np.int64), np.array(counts, dtype=np.int64))


def _of_store(rows: StoredRows) -> RowKeys:
    """Taken from the store, block by block."""
    first, positives, folded = rows.text_rows(), rows.positive_counts(), rows.folded_keys()
    starts = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum(positives + 1, out=starts[1:])
    keys_T = np.empty(int(starts[-1]), dtype=np.int64)
    for block in range(0, len(rows), BLOCK):
        end = min(block + BLOCK, len(rows))
        counts = positives[block:end] + 1
        begin = starts[block:end]
        within = np.arange(starts[block], starts[end]) - np.repeat(begin, counts)
        found = folded[np.repeat(first[block:end], counts) + within]
        keys_T[starts[block] : starts[end]] = np.where(within > 0, found ^ POSITIVE, found)
        rows.give_back()
    return RowKeys(keys_T, starts)
