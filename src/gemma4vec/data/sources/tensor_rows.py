"""Rows of a file of token ids and masks, read where they stand: nothing is copied, whatever its size."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gemma4vec.data.rows.lazy_rows import LazyRows
from gemma4vec.data.rows.memmap import give_back_pages
from gemma4vec.data.rows.rows import Row, shown_share
from gemma4vec.data.sources.token_files import open_tensors
from gemma4vec.errors import InputError
from gemma4vec.files import cache, write_json
from gemma4vec.text.pretokenized import PretokenizedText
from gemma4vec.text.prompts import Document
from gemma4vec.text.text_hash import tokens_key

BLOCK = 65_536
KEYS_BLOCK = 8_192
# So many rows are read between two times that pages are given back: one touch may map 2 MiB around it.
ROWS_HELD = 64


class Checked(NamedTuple):
    """What a look at every row found: how many there are, the highest id, and the numbers (from 0) of the bad ones."""

    rows: int
    largest_token: int
    bad: list[int]


class TensorRows(LazyRows):
    """A row for each row of the tensors that has tokens, made when it is asked for; its query has the tokens.

    Attributes:
        checked: what a look at all rows found.
    """

    def __init__(self, path: Path, checked: Checked, *, pair_with_itself: bool, size: int | None = None):
        ids_NC, mask_NC = open_tensors(path)
        self.path = path
        self.checked = checked
        self.pair_with_itself = pair_with_itself
        self._ids: NDArray[Any] = ids_NC.numpy()
        self._mask: NDArray[Any] = mask_NC.numpy()
        self._good = np.delete(np.arange(checked.rows), checked.bad) if checked.bad else None
        whole = checked.rows - len(checked.bad)
        self.size = min(size or whole, whole)
        self._read = 0

    def row(self, number: int) -> Row:
        place = number if self._good is None else int(self._good[number])
        text = PretokenizedText(self._ids[place][self._mask[place] != 0].tolist())
        self._read += 1
        if self._read % ROWS_HELD == 0:
            give_back_pages(self._ids)
            give_back_pages(self._mask)
        return Row(text, [Document(text)] if self.pair_with_itself else [])

    def keys(self) -> NDArray[np.int64]:
        """`text.text_hash` of each row's tokens: `int64[R]`. Reads all of them."""
        keys: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
        for start in range(0, self.size, KEYS_BLOCK):
            end = min(start + KEYS_BLOCK, self.size)
            chosen: Any = slice(start, end) if self._good is None else self._good[start:end]
            ids, shown = self._ids[chosen], self._mask[chosen] != 0
            raw = ids[shown].astype("<i4").tobytes()
            ends = 4 * np.cumsum(shown.sum(axis=1))
            spans = zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)
            keys.append(np.array([tokens_key(raw[begin:end]) for begin, end in spans], dtype=np.int64))
            give_back_pages(self._ids)
            give_back_pages(self._mask)
        return np.concatenate(keys)

    def first(self, size: int | None) -> "TensorRows":
        """The first so many of the rows."""
        if size is None or size >= self.size:
            return self
        return TensorRows(self.path, self.checked, pair_with_itself=self.pair_with_itself, size=size)


def check_tensors(path: Path, content_hash: str) -> Checked:
    """Look at every row of a file, once for each content.

    Raises:
        InputError: no such tensors.
    """
    note = cache() / "tensors" / f"{content_hash[:24]}.json"
    with suppress(OSError, ValueError, TypeError):
        return Checked(**json.loads(note.read_text(encoding="utf-8")))
    ids_NC, mask_NC = open_tensors(path)
    bad: list[int] = []
    largest = -1
    for start in range(0, len(ids_NC), BLOCK):
        ids, mask = ids_NC[start : start + BLOCK].numpy(), mask_NC[start : start + BLOCK].numpy()
        shown = np.where(mask != 0, ids, -1)
        highest = shown.max(axis=1, initial=-1)
        wrong = (highest < 0) | (highest >= 2**31) | ((mask != 0) & (ids < 0)).any(axis=1)
        bad += (np.flatnonzero(wrong) + start).tolist()
        largest = max(largest, int(highest[~wrong].max(initial=-1)))
        give_back_pages(ids)
        give_back_pages(mask)
    checked = Checked(len(ids_NC), largest, bad)
    write_json(note, checked._asdict())
    return checked


def refuse_bad_tensors(path: Path, checked: Checked, max_bad_share: float) -> str:
    """The first bad row in words, "" where there is none.

    Raises:
        InputError: more rows are bad than allowed, or all.
    """
    if not checked.rows:
        raise InputError(f"{path}: the file is empty; at least one row of tokens is needed")
    if not checked.bad:
        return ""
    first = f"{path} row {checked.bad[0] + 1}: is empty or holds numbers that are no token ids"
    if len(checked.bad) > max_bad_share * checked.rows or len(checked.bad) == checked.rows:
        raise InputError(
            f"{first} ({len(checked.bad)} of {checked.rows} rows are bad, {shown_share(max_bad_share)} are allowed); "
            "mend the rows or allow a larger share (max_bad_share)"
        )
    return first
