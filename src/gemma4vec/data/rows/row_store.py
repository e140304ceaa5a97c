"""Rows on disk in a form that is mapped, not read: millions of rows open at once and take next to no memory.

A store is a folder: the bytes of all texts one after the other (`texts.bin`), where each ends (`ends.bin`), the number
of each row's first text (`first.bin`, one more than there are rows), how many positives it has (`positives.bin`),
numbers of its group, its task and the teacher that scored it (`groups.bin`, `tasks.bin`, `teachers.bin`, -1: none), a
hash of each text (`keys.bin`), one that folds case and white space (`folded.bin`), the scores of scored rows
(`scores.bin`) and where each row's begin (`scored.bin`, -1: it has none), and `store.json`.

A text is UTF-8; with a title in front and a zero byte between; or, where tokens were given, a one byte, the prompt's
length, the key, and the ids. Texts never hold either byte (`data.rows.rows.CONTROL`).
"""

import hashlib
import json
import struct
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemma4vec.data.rows.lazy_rows import LazyRows
from gemma4vec.data.rows.memmap import MappedFile
from gemma4vec.data.rows.rows import ContentHash, Row
from gemma4vec.data.rows.scores import Scores
from gemma4vec.files import atomic_folder, write_json
from gemma4vec.text.pretokenized import PretokenizedText
from gemma4vec.text.prompts import Document
from gemma4vec.text.text_hash import text_key

FORMAT = 3
TITLE, TOKENS = b"\x00", b"\x01"
HEADER = struct.Struct("<iqi")  # prompt, key, whether there is a key
# So many rows are read between two times that pages are given back: one touch may map 2 MiB around it.
ROWS_HELD = 128
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
    """The rows of a store, each made when it is asked for.

    Attributes:
        facts: what `write_store` was told and what it found: `rows`, `content_hash`, `largest_token`, and the rest.
        size: how many of the rows there are; `first(n)` gives fewer.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.facts: dict[str, Any] = json.loads((folder / "store.json").read_text(encoding="utf-8"))
        self._texts = MappedFile(folder / "texts.bin", np.uint8)
        self._files = {name: MappedFile(folder / f"{name}.bin", dtype) for name, dtype in ARRAYS.items()}
        self._ends, self._first = self._files["ends"].array, self._files["first"].array
        self._positives = self._files["positives"].array
        self._groups, self._tasks = self._files["groups"].array, self._files["tasks"].array
        self.size = len(self._positives)
        self._read = 0

    def row(self, number: int) -> Row:
        self._hold()
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

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(one == two for one, two in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def first(self, size: int | None) -> "StoredRows":
        """The first so many of the rows."""
        if size is None or size >= self.size:
            return self
        fewer = copy(self)  # the files are mapped once
        fewer.size = size
        return fewer

    def positive_counts(self) -> NDArray[np.int64]:
        """How many positives each row has: `int64[R]`."""
        return self._positives[: self.size].astype(np.int64)

    def negative_counts(self) -> NDArray[np.int64]:
        """How many negatives each row has: `int64[R]`."""
        texts = np.diff(self._first[: self.size + 1])
        return texts - 1 - self._positives[: self.size]

    def group_numbers(self) -> NDArray[np.int64]:
        """A number for each row's group, -1 where it has none: `int64[R]`."""
        return self._groups[: self.size].astype(np.int64)

    def task_numbers(self) -> NDArray[np.int64]:
        """A number for each row's task, -1 where it has none: `int64[R]`."""
        return self._tasks[: self.size].astype(np.int64)

    def scored(self) -> NDArray[np.bool_]:
        """Whether a row has a teacher's scores: `bool[R]`."""
        return self._files["scored"].array[: self.size] >= 0

    def text_keys(self) -> NDArray[np.int64]:
        """A hash of each text, queries first in their rows: `int64[T]`, and see `text`."""
        return self._files["keys"].array[: int(self._first[self.size])]

    def folded_keys(self) -> NDArray[np.int64]:
        """`text.text_hash` of each text, in the same order: `int64[T]`."""
        return self._files["folded"].array[: int(self._first[self.size])]

    def text_rows(self) -> NDArray[np.int64]:
        """Number of the first text of each row, and one more: `int64[R + 1]`."""
        return self._first[: self.size + 1]

    def text(self, number: int) -> Document:
        """One text by its number."""
        self._hold()
        return self._document(number)

    def give_back(self) -> None:
        """Let go of the pages that were read."""
        self._texts.give_back()
        for file in self._files.values():
            file.give_back()

    def _hold(self) -> None:
        self._read += 1
        if self._read % ROWS_HELD == 0:
            self.give_back()

    def _document(self, number: int) -> Document:
        begin = int(self._ends[number - 1]) if number else 0
        raw = self._texts.array[begin : int(self._ends[number])].tobytes()
        if raw[:1] == TOKENS:
            prompt, key, keyed = HEADER.unpack_from(raw, 1)
            ids = np.frombuffer(raw, dtype="<i4", offset=1 + HEADER.size).tolist()
            return Document(PretokenizedText(ids, prompt, key if keyed else None))
        title, separator, text = raw.partition(TITLE)
        return Document(text.decode("utf-8"), title.decode("utf-8")) if separator else Document(title.decode("utf-8"))


def write_store(folder: Path, rows: Iterable[Row], facts: dict[str, Any]) -> StoredRows:
    """Write rows as a store, one by one, replacing `folder` only when all of it is written.

    `facts` goes into `store.json`; what it says when the last row has been taken counts.

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
            raws = list(map(encoded, documents))
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
    """The store in a folder, if it was written for this key by this version of the format."""
    try:
        store = StoredRows(folder)
        fits = store.facts.get("format") == FORMAT and store.facts.get("key") == key
        return store if fits and _whole(store) else None
    except (OSError, ValueError):
        return None


def open_or_write(folder: Path, key: str, write: Callable[[], StoredRows]) -> StoredRows:
    """The store in a folder, written now where there is none for this key; by one process of several that want it."""
    store = open_store(folder, key)
    if store is not None:
        return store
    from filelock import FileLock

    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{folder.name}.lock"):
        return open_store(folder, key) or write()


def _whole(store: StoredRows) -> bool:
    """Whether every file is as long as the store says: a copy may have been cut."""
    rows, texts = store.facts["rows"], store.facts["texts"]
    lengths = {"ends": texts, "keys": texts, "folded": texts, "first": rows + 1, "scores": store.facts["scores"]}
    arrays = all(len(file.array) == lengths.get(name, rows) for name, file in store._files.items())
    return arrays and (not texts or int(store._ends[-1]) == len(store._texts.array))


def encoded(document: Document) -> bytes:
    """A text as it stands in a store; equal for equal texts."""
    text, title = document
    if isinstance(text, PretokenizedText):
        header = HEADER.pack(text.prompt, text.key or 0, text.key is not None)
        return TOKENS + header + np.asarray(text.ids, dtype="<i4").tobytes()
    raw = text.encode("utf-8", errors="replace")
    return raw if not title else title.encode("utf-8", errors="replace") + TITLE + raw
