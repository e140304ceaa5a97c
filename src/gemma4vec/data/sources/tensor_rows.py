"""Rows of a `torch.save` file of token ids and masks, mapped into memory: a file of any size is read in place."""

from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gemma4vec.data.rows.lazy_rows import POSITIVE, LazyRows, NameKind, RowHashes, RowNames
from gemma4vec.data.rows.memmap import release_pages
from gemma4vec.data.rows.row_texts import RowTexts, TextKind
from gemma4vec.data.rows.rows import Row, format_share
from gemma4vec.data.sources.token_files import open_tensors
from gemma4vec.errors import InputError
from gemma4vec.files import cache, optional_file, write_json
from gemma4vec.reading.json_values import load_own_json
from gemma4vec.text.pretokenized import PretokenizedText
from gemma4vec.text.prompts import Document
from gemma4vec.text.text_hash import tokens_key

BLOCK = 65_536
KEYS_BLOCK = 8_192
# Release mapped pages every N rows: one access can fault in 2 MiB.
ROWS_HELD = 64


class TensorCheck(NamedTuple):
    """Result of reading every row: number of rows, largest token id, and the indices (from 0) of bad rows."""

    rows: int
    largest_token: int
    bad: list[int]


class TensorRows(LazyRows):
    """One row for each good row of the tensors, made when it is read. The query holds the tokens.

    Attributes:
        checked: result of `check_tensors`.
    """

    on_disk = True
    tokenized = True

    def __init__(self, path: Path, checked: TensorCheck, *, pair_with_itself: bool, size: int | None = None):
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
            release_pages(self._ids)
            release_pages(self._mask)
        return Row(text, [Document(text)] if self.pair_with_itself else [])

    def positive_counts(self) -> NDArray[np.int64]:
        return np.full(self.size, int(self.pair_with_itself), dtype=np.int64)

    def negative_counts(self) -> NDArray[np.int64]:
        return np.zeros(self.size, dtype=np.int64)

    def has_scores(self) -> NDArray[np.bool_]:
        return np.zeros(self.size, dtype=np.bool_)

    def names(self, kind: NameKind) -> RowNames:
        return RowNames(np.full(self.size, -1, dtype=np.int64), [])

    def text_hashes(self) -> RowHashes:
        """Hashes of all queries and positives; reads every row."""
        hashes_R, each = self._token_hashes(), 2 if self.pair_with_itself else 1
        found = np.stack([hashes_R, hashes_R ^ POSITIVE], axis=1)[:, :each]
        return RowHashes(found.reshape(-1), np.arange(0, each * self.size + 1, each))

    def texts(self, which: TextKind) -> "TensorTexts":
        return TensorTexts(self)

    def _token_hashes(self) -> NDArray[np.int64]:
        keys: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
        for start in range(0, self.size, KEYS_BLOCK):
            end = min(start + KEYS_BLOCK, self.size)
            chosen: Any = slice(start, end) if self._good is None else self._good[start:end]
            ids, shown = self._ids[chosen], self._mask[chosen] != 0
            raw = ids[shown].astype("<i4").tobytes()
            ends = 4 * np.cumsum(shown.sum(axis=1))
            spans = zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)
            keys.append(np.array([tokens_key(raw[begin:end]) for begin, end in spans], dtype=np.int64))
            release_pages(self._ids)
            release_pages(self._mask)
        return np.concatenate(keys)

    def first(self, size: int | None) -> "TensorRows":
        """The first `size` rows; all of them if `size` is None."""
        if size is None or size >= self.size:
            return self
        return TensorRows(self.path, self.checked, pair_with_itself=self.pair_with_itself, size=size)


class TensorTexts(RowTexts):
    """One text a row, whichever texts are wanted: a row of tensors has no other."""

    def __init__(self, rows: TensorRows):
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def hashes(self, seed: int) -> NDArray[np.int64]:
        """Random numbers, unlikely to equal any hash: comparing rows of tensors would read all of them."""
        return np.random.default_rng(seed).integers(-(2**63), 2**63 - 1, len(self._rows), dtype=np.int64)

    def document(self, number: int) -> Document:
        return Document(self._rows[number].query)


def check_tensors(path: Path, content_hash: str) -> TensorCheck:
    """Read every row of a file and find bad ones. The result is cached by the file's `content_hash`.

    Raises:
        InputError: no such tensors.
    """
    note = cache() / "tensors" / f"{content_hash[:24]}.json"
    with suppress(OSError, ValueError, TypeError):
        return TensorCheck(**load_own_json(note))
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
        release_pages(ids)
        release_pages(mask)
    checked = TensorCheck(len(ids_NC), largest, bad)
    with optional_file("notes on data files"):
        write_json(note, checked._asdict())
    return checked


def refuse_bad_tensors(path: Path, checked: TensorCheck, max_bad_share: float) -> str:
    """One line about the first bad row; "" if all rows are good.

    Raises:
        InputError: more rows are bad than allowed, or all.
    """
    if not checked.rows:
        raise InputError(f"{path}: the file is empty; it must have at least one row of tokens")
    if not checked.bad:
        return ""
    first = f"{path} row {checked.bad[0] + 1}: is empty or has numbers that are not token ids"
    if len(checked.bad) > max_bad_share * checked.rows or len(checked.bad) == checked.rows:
        raise InputError(
            f"{first} ({len(checked.bad)} of {checked.rows} rows are bad, {format_share(max_bad_share)} are allowed); "
            "mend the rows or allow a larger share (max_bad_share)"
        )
    return first
