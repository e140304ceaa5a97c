"""The documents of a search index, on disk as JSON lines with a table of offsets.

Opening an index reads no texts; a hit reads one line of the file. So a cold search is fast for any number of
documents.
"""

import hashlib
import json
import mmap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, overload

import numpy as np

from gemma4vec.data.documents.section import Section
from gemma4vec.data.pycode.extract import Function
from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.errors import InputError
from gemma4vec.files import NPY_ERRORS, atomic_write
from gemma4vec.reading.json_values import JsonError, loads_json
from gemma4vec.text.prompts import Document

DOCUMENTS = "documents.jsonl"
OFFSETS = "offsets.npy"


@dataclass(frozen=True, slots=True)
class IndexedDocument:
    """A searchable text. `path` and `line` (from 1) are its location, if it comes from a file."""

    id: str
    text: str
    title: str | None = None
    path: str | None = None
    line: int | None = None

    def as_document(self) -> Document:
        """Return text and title for the embedder."""
        return Document(self.text, self.title)


def documents_from_functions(functions: Iterable[Function]) -> list[IndexedDocument]:
    """Make documents from functions of the `pycode` source, with file and line."""
    return [
        IndexedDocument(function.id, function.source, path=function.path, line=function.line) for function in functions
    ]


def documents_from_sections(sections: Iterable[Section]) -> list[IndexedDocument]:
    """Make documents from sections of a folder, with file and line."""
    return [
        IndexedDocument(section.id, section.text, section.title, section.path, section.line) for section in sections
    ]


def documents_from_suite(suite: RetrievalSuite, functions: Iterable[Function] = ()) -> list[IndexedDocument]:
    """Make documents from a suite's corpus, in its order. `functions` supply file and line by id."""
    places = {function.id: (function.path, function.line) for function in functions}
    return [
        IndexedDocument(key, text, title, *places.get(key, (None, None)))
        for key, (text, title) in zip(suite.corpus_ids, suite.corpus, strict=True)
    ]


def write_documents(folder: Path, documents: Sequence[IndexedDocument]) -> None:
    """Write `documents.jsonl` and `offsets.npy` (int64[M + 1]: start of each line, and the file's size)."""
    offsets = np.zeros(len(documents) + 1, dtype=np.int64)
    with atomic_write(folder / DOCUMENTS, "wb") as stream:
        for row, document in enumerate(documents):
            # ASCII escapes make lone surrogates and control characters writable.
            stream.write(json.dumps(asdict(document)).encode("ascii") + b"\n")
            offsets[row + 1] = stream.tell()
    with atomic_write(folder / OFFSETS, "wb") as stream:
        np.save(stream, offsets)


def corpus_hash(documents: Sequence[IndexedDocument]) -> str:
    """Return the hexadecimal SHA-256 of the documents in order. Equal hashes mean that vectors can be reused."""
    digest = hashlib.sha256()
    for document in documents:
        fields = (document.id, document.text, document.title, document.path, document.line)
        digest.update(json.dumps(fields).encode("ascii"))
    return digest.hexdigest()


class DocumentStore(Sequence[IndexedDocument]):
    """The documents of an index folder, read one at a time."""

    def __init__(self, folder: Path) -> None:
        """Open the store.

        Raises:
            ValueError: the files disagree.
            OSError: a file is missing.
        """
        try:
            self._offsets = np.load(folder / OFFSETS, allow_pickle=False)
        except NPY_ERRORS as error:
            raise ValueError(f"{OFFSETS} is damaged ({' '.join(str(error).split())})") from error
        self._folder = folder
        size = (folder / DOCUMENTS).stat().st_size
        if self._offsets.ndim != 1 or len(self._offsets) < 1 or int(self._offsets[-1]) != size:
            raise ValueError(f"{DOCUMENTS} has {size} bytes, but {OFFSETS} says otherwise")
        stream: IO[Any]
        with (folder / DOCUMENTS).open("rb") as stream:
            # An empty file cannot be mapped.
            self._bytes: mmap.mmap | bytes = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) if size else b""

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, row: int) -> IndexedDocument: ...

    @overload
    def __getitem__(self, row: slice) -> list[IndexedDocument]: ...

    def __getitem__(self, row: int | slice) -> IndexedDocument | list[IndexedDocument]:
        if isinstance(row, slice):
            return [self[index] for index in range(*row.indices(len(self)))]
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        row %= len(self)
        line = self._bytes[int(self._offsets[row]) : int(self._offsets[row + 1])]
        try:
            return IndexedDocument(**loads_json(line, surrogates=True))
        except (JsonError, TypeError) as error:
            raise InputError(
                f"the search index {self._folder} is damaged (document {row + 1}: {error}); delete it and rebuild it"
            ) from error

    def __iter__(self) -> Iterator[IndexedDocument]:
        return (self[row] for row in range(len(self)))
