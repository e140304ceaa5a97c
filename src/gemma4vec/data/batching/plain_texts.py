"""The plain texts of rows: what a model is adapted on before it learns from rows."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gemma4vec.data.batching.mixture import MixedRows
from gemma4vec.data.rows.row_store import StoredRows, encoded
from gemma4vec.data.rows.rows import Row
from gemma4vec.data.sources.tensor_rows import TensorRows
from gemma4vec.text.prompts import Document, Prompts

Which = Literal["all", "queries", "documents"]
_PLAIN = Prompts()


def texts_of_rows(rows: Iterable[Row], which: Which) -> Iterator[str]:
    """The texts of rows, without prompts, titles in front of their documents; a text may come several times."""
    for row in rows:
        if which != "documents":
            yield row.query
        if which != "queries":
            for document in (*row.pos, *row.neg):
                yield _PLAIN.for_document(document).text


def unique_texts(plain: MixedRows, rows: MixedRows, which: Which) -> Sequence[str]:
    """Every text once, in the order of the data: those of `plain`, whose rows have nothing but a query, then of `rows`.

    Where rows are on disk, so are the texts: what is in memory is 16 bytes for each. Rows of tensors are taken as they
    come, each once, without a look at what they hold.
    """
    parts: list[tuple[Sequence[Row], Which]] = [(part.rows, "queries") for part in plain.parts]
    parts += [(part.rows, which) for part in rows.parts]
    if not any(isinstance(found, StoredRows | TensorRows) for found, _ in parts):
        return list(dict.fromkeys(text for found, wanted in parts for text in texts_of_rows(found, wanted)))
    return TextsOnDisk([_Texts(found, wanted) for found, wanted in parts])


class TextsOnDisk(Sequence[str]):
    """The texts of several parts, each text once."""

    def __init__(self, parts: "Sequence[_Texts]"):
        self._parts = parts
        keys = np.concatenate([part.keys(number) for number, part in enumerate(parts)])
        self._starts = np.cumsum([0, *(len(part) for part in parts)])
        self._places = np.sort(np.unique(keys, return_index=True)[1])

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = int(self._places[index])
        part = int(np.searchsorted(self._starts, place, side="right")) - 1
        return self._parts[part].text(place - int(self._starts[part]))


class _Texts:
    """The texts of one part by number, and hashes that tell equal ones."""

    def __init__(self, rows: Sequence[Row], which: Which):
        self._rows = rows
        self._numbers: NDArray[np.int64] | None = None
        self._documents: list[Document] = []
        if isinstance(rows, StoredRows):
            first = rows.text_rows()
            is_query = np.zeros(int(first[-1]), dtype=bool)
            is_query[first[:-1]] = True
            wanted = {"all": np.ones_like(is_query), "queries": is_query, "documents": ~is_query}[which]
            self._numbers = np.flatnonzero(wanted)
        elif not isinstance(rows, TensorRows):
            for row in rows:
                self._documents += [] if which == "documents" else [Document(row.query)]
                self._documents += [] if which == "queries" else [*row.pos, *row.neg]

    def __len__(self) -> int:
        if self._numbers is not None:
            return len(self._numbers)
        return len(self._rows) if isinstance(self._rows, TensorRows) else len(self._documents)

    def keys(self, part: int) -> NDArray[np.int64]:
        """A hash for each text: `int64[T]`. Rows of tensors have one each, which no text is likely to have."""
        if isinstance(self._rows, StoredRows):
            return self._rows.text_keys()[self._numbers]
        if isinstance(self._rows, TensorRows):
            return np.random.default_rng(part).integers(-(2**63), 2**63 - 1, len(self._rows), dtype=np.int64)
        digests = b"".join(hashlib.blake2b(encoded(text), digest_size=8).digest() for text in self._documents)
        return np.frombuffer(digests, dtype="<i8")

    def text(self, number: int) -> str:
        """One of the texts."""
        if isinstance(self._rows, StoredRows):
            assert self._numbers is not None
            document = self._rows.text(int(self._numbers[number]))
        elif isinstance(self._rows, TensorRows):
            document = Document(self._rows[number].query)
        else:
            document = self._documents[number]
        return _PLAIN.for_document(document).text
