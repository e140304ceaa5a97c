"""Rows on disk, mapped into memory instead of read: millions of rows open in milliseconds and take almost no memory.

A store is a folder of one file for each array, and `store.json`:

- `texts.bin`: the bytes of all texts (`data.rows.text_bytes`); `ends.bin`: the end of each text
- `keys.bin`: a hash of each text; `folded.bin`: a hash that ignores case and white space
- `first.bin`: index of each row's first text, and the number of texts at the end
- `positives.bin`: number of positives of each row
- `groups.bin`, `tasks.bin`, `teachers.bin`: index into the names in `store.json` for each row, -1 for none
- `scores.bin`: teachers' scores; `scored.bin`: start of each row's scores, -1 for none

Shapes: R rows, T texts (queries, positives and negatives).
"""

import hashlib
import struct
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemma4vec.data.rows.lazy_rows import POSITIVE, LazyRows, NameKind, RowHashes, RowNames
from gemma4vec.data.rows.memmap import MappedFile
from gemma4vec.data.rows.row_texts import RowTexts, TextKind
from gemma4vec.data.rows.rows import ContentHash, Row
from gemma4vec.data.rows.scores import Scores
from gemma4vec.data.rows.text_bytes import from_bytes, to_bytes
from gemma4vec.files import atomic_folder, disk_errors, write_json
from gemma4vec.reading.json_values import load_own_json
from gemma4vec.text.pretokenized import PretokenizedText
from gemma4vec.text.prompts import Document
from gemma4vec.text.text_hash import text_key

FORMAT = 3
# Release mapped pages every N rows: one access can fault in 2 MiB.
ROWS_HELD = 128
HASH_BLOCK = 2**18
ARRAYS = {
    "ends": np.int64,
    "first": np.int64,
    "positives": np.int32,
    "groups": np.int32,
    "tasks": np.int32,
    "keys": np.int64,
    "folded": np.int64,
    "scores": np.float64,
    "scored": np.int64,
    "teachers": np.int32,
}


class StoredRows(LazyRows):
    """The rows of a store, each made when it is read.

    Attributes:
        facts: contents of `store.json`: `rows`, `content_hash`, `largest_token`, and the facts given to `write_store`.
        size: number of rows; less than the store has after `first(n)`.
    """

    on_disk = True

    def __init__(self, folder: Path):
        self.folder = folder
        self.facts: dict[str, Any] = load_own_json(folder / "store.json")
        self._texts = MappedFile(folder / "texts.bin", np.uint8)
        self._files = {name: MappedFile(folder / f"{name}.bin", dtype) for name, dtype in ARRAYS.items()}
        self._ends, self._first = self._files["ends"].array, self._files["first"].array
        self._positives = self._files["positives"].array
        self._groups, self._tasks = self._files["groups"].array, self._files["tasks"].array
        self.size = len(self._positives)
        self._read = 0

    def row(self, number: int) -> Row:
        self._count_read()
        begin, end = int(self._first[number]), int(self._first[number + 1])
        texts = [self._document(text) for text in range(begin, end)]
        positives = 1 + int(self._positives[number])
        group, task = int(self._groups[number]), int(self._tasks[number])
        return Row(
            texts[0].text,
            texts[1:positives],
            texts[positives:],
            self.facts["task_names"][task] if task >= 0 else None,
            self.facts["group_names"][group] if group >= 0 else None,
            self._scores(number, positives - 1, len(texts) - positives),
        )

    def _scores(self, number: int, positives: int, negatives: int) -> Scores | None:
        begin = int(self._files["scored"].array[number])
        if begin < 0:
            return None
        values = self._files["scores"].array[begin : begin + positives + negatives].tolist()
        teacher = self.facts["teacher_names"][int(self._files["teachers"].array[number])]
        return Scores(tuple(values[:positives]), tuple(values[positives:]), teacher)

    def first(self, size: int | None) -> "StoredRows":
        """The first `size` rows; all of them if `size` is None."""
        if size is None or size >= self.size:
            return self
        fewer = copy(self)  # the files are mapped once
        fewer.size = size
        return fewer

    def positive_counts(self) -> NDArray[np.int64]:
        return self._positives[: self.size].astype(np.int64)

    def negative_counts(self) -> NDArray[np.int64]:
        texts = np.diff(self._first[: self.size + 1])
        return texts - 1 - self._positives[: self.size]

    def has_scores(self) -> NDArray[np.bool_]:
        return self._files["scored"].array[: self.size] >= 0

    def names(self, kind: NameKind) -> RowNames:
        numbers = self._groups if kind == "group" else self._tasks
        return RowNames(numbers[: self.size].astype(np.int64), self.facts[f"{kind}_names"])

    def text_hashes(self) -> RowHashes:
        """Hashes of all queries and positives, copied block by block from the store."""
        first, positives, folded = self.first_texts(), self.positive_counts(), self.folded_keys()
        starts = np.zeros(self.size + 1, dtype=np.int64)
        np.cumsum(positives + 1, out=starts[1:])
        hashes_T = np.empty(int(starts[-1]), dtype=np.int64)
        for block in range(0, self.size, HASH_BLOCK):
            end = min(block + HASH_BLOCK, self.size)
            counts = positives[block:end] + 1
            within = np.arange(starts[block], starts[end]) - np.repeat(starts[block:end], counts)
            found = folded[np.repeat(first[block:end], counts) + within]
            hashes_T[starts[block] : starts[end]] = np.where(within > 0, found ^ POSITIVE, found)
            self.release()
        return RowHashes(hashes_T, starts)

    def texts(self, which: TextKind) -> "StoredTexts":
        return StoredTexts(self, which)

    def text_keys(self) -> NDArray[np.int64]:
        """A hash of each text's bytes: `int64[T]`."""
        return self._files["keys"].array[: int(self._first[self.size])]

    def folded_keys(self) -> NDArray[np.int64]:
        """`text.text_hash` of each text: `int64[T]`."""
        return self._files["folded"].array[: int(self._first[self.size])]

    def first_texts(self) -> NDArray[np.int64]:
        """Index of each row's first text, its query, and T at the end: `int64[R + 1]`."""
        return self._first[: self.size + 1]

    def text(self, number: int) -> Document:
        """Text `number`, from 0 and below T."""
        self._count_read()
        return self._document(number)

    def release(self) -> None:
        """Release the pages that were read."""
        self._texts.release()
        for file in self._files.values():
            file.release()

    def _count_read(self) -> None:
        self._read += 1
        if self._read % ROWS_HELD == 0:
            self.release()

    def _document(self, number: int) -> Document:
        begin = int(self._ends[number - 1]) if number else 0
        return from_bytes(self._texts.array[begin : int(self._ends[number])].tobytes())


class StoredTexts(RowTexts):
    """Texts of a store; each is read when it is asked for."""

    def __init__(self, rows: StoredRows, which: TextKind):
        self._rows = rows
        first = rows.first_texts()
        is_query = np.zeros(int(first[-1]), dtype=bool)
        is_query[first[:-1]] = True
        wanted = {"all": np.ones_like(is_query), "queries": is_query, "documents": ~is_query}[which]
        self._numbers = np.flatnonzero(wanted)

    def __len__(self) -> int:
        return len(self._numbers)

    def hashes(self, seed: int) -> NDArray[np.int64]:
        return self._rows.text_keys()[self._numbers]

    def document(self, number: int) -> Document:
        return self._rows.text(int(self._numbers[number]))


def write_store(folder: Path, rows: Iterable[Row], facts: dict[str, Any]) -> StoredRows:
    """Write rows as a store, one by one; `folder` is replaced once the store is complete.

    `facts` goes into `store.json` after the last row was read, so that the iterator may add to it.

    Raises:
        WorkError: the disk is full or the folder cannot be written.
    """
    with atomic_folder(folder) as made, ExitStack() as stack:
        streams = {name: stack.enter_context((made / f"{name}.bin").open("wb")) for name in ("texts", *ARRAYS)}
        names: dict[str, dict[str, int]] = {"groups": {}, "tasks": {}, "teachers": {}}
        hashing = ContentHash()
        texts = end = count = scores = 0
        largest = -1
        for row in rows:
            hashing.add(row)
            documents = [Document(row.query), *row.pos, *row.neg]
            raws = list(map(to_bytes, documents))
            ends = end + np.cumsum([len(raw) for raw in raws], dtype=np.int64)
            streams["texts"].write(b"".join(raws))
            streams["ends"].write(ends.tobytes())
            streams["keys"].write(b"".join(hashlib.blake2b(raw, digest_size=8).digest() for raw in raws))
            folded = [text_key(row.query), *map(text_key, documents[1:])]
            streams["folded"].write(struct.pack(f"<{len(folded)}q", *folded))
            streams["first"].write(texts.to_bytes(8, "little"))
            streams["positives"].write(len(row.pos).to_bytes(4, "little"))
            values = () if row.scores is None else (*row.scores.pos, *row.scores.neg)
            streams["scores"].write(np.asarray(values, dtype=np.float64).tobytes())
            streams["scored"].write((-1 if row.scores is None else scores).to_bytes(8, "little", signed=True))
            scores += len(values)
            teacher = None if row.scores is None else row.scores.teacher
            for name, value in (("groups", row.group), ("tasks", row.task), ("teachers", teacher)):
                known = names[name]
                number = -1 if value is None else known.setdefault(value, len(known))
                streams[name].write(number.to_bytes(4, "little", signed=True))
            for text in (row.query, *(document.text for document in (*row.pos, *row.neg))):
                if isinstance(text, PretokenizedText):
                    largest = max(largest, *text.ids)
            texts, end, count = texts + len(raws), int(ends[-1]), count + 1
        streams["first"].write(texts.to_bytes(8, "little"))
        stack.close()
        found: dict[str, Any] = {"rows": count, "texts": texts, "scores": scores, "largest_token": largest}
        found["content_hash"] = hashing.hexdigest()
        named = {f"{name[:-1]}_names": list(known) for name, known in names.items()}
        write_json(made / "store.json", {"format": FORMAT, **facts, **found, **named})
    return StoredRows(folder)


def open_store(folder: Path, key: str) -> StoredRows | None:
    """The store in a folder; None unless it is complete, of this format, and written for this key."""
    try:
        store = StoredRows(folder)
        fits = store.facts.get("format") == FORMAT and store.facts.get("key") == key
        return store if fits and _whole(store) else None
    except (OSError, ValueError):
        return None


def open_or_write(folder: Path, key: str, write: Callable[[], StoredRows]) -> StoredRows:
    """The store in a folder; calls `write` if there is none for this key. A file lock lets one process write."""
    store = open_store(folder, key)
    if store is not None:
        return store
    from filelock import FileLock

    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.parent / f".{folder.name}.lock")
        lock.acquire()
    with lock:
        lock.release()  # the block holds it once
        return open_store(folder, key) or write()


def _whole(store: StoredRows) -> bool:
    """Whether every file has the length that `store.json` names: an interrupted copy is cut short."""
    rows, texts = store.facts["rows"], store.facts["texts"]
    lengths = {"ends": texts, "keys": texts, "folded": texts, "first": rows + 1, "scores": store.facts["scores"]}
    arrays = all(len(file.array) == lengths.get(name, rows) for name, file in store._files.items())
    return arrays and (not texts or int(store._ends[-1]) == len(store._texts.array))
