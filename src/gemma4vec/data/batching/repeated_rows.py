"""Rows that a pass reads several times: lists that `gemma4vec inspect remedy` writes and a source's `repeat` names.

A list is JSONL with one object for each row: `key` (hash of the row's contents, as in drop lists) and `times`, how
often a pass reads it. The key identifies the row, so a list remains valid after rows are added, moved or removed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from gemma4vec.data.batching.short_rows import SelectedRows
from gemma4vec.data.rows.jsonl import read_lines
from gemma4vec.data.rows.lazy_rows import as_lazy_rows
from gemma4vec.data.rows.rows import Row
from gemma4vec.data.sources.drops import row_key
from gemma4vec.errors import InputError

MOST_TIMES = 1_000


def read_repeats(path: Path) -> Mapping[str, int]:
    """Read a list: key of a row -> how often a pass reads it.

    Raises:
        InputError: the file cannot be read, or a line is not an entry; names the line.
    """
    repeats: dict[str, int] = {}
    for number, value, reason in read_lines(path):
        entry = value or {}
        key, times = entry.get("key"), entry.get("times")
        if not isinstance(key, str) or type(times) is not int or not 1 <= times <= MOST_TIMES:
            wrong = reason or f'expected an object with "key" and "times" (1 to {MOST_TIMES:,})'
            raise InputError(f"{path} line {number}: {wrong}; make the list again with gemma4vec inspect remedy")
        repeats[key] = times
    return repeats


def repeat_rows(rows: Sequence[Row], repeats: Mapping[str, int], where: str) -> SelectedRows:
    """The rows in their order, those of the list several times in a row.

    Raises:
        InputError: no row is in the list: it is of other data.
    """
    times_R = np.fromiter((repeats.get(row_key(row), 1) for row in rows), dtype=np.int64, count=len(rows))
    if repeats and not (times_R > 1).any() and max(repeats.values()) > 1:
        raise InputError(f"{where}: none of its rows is in the list of `repeat`; make the list again for these rows")
    return SelectedRows(as_lazy_rows(rows), np.repeat(np.arange(len(rows)), times_R))
