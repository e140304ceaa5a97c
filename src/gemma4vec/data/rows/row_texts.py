"""The texts of rows as a numbered list with hashes, so that duplicates are found without reading rows from disk."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gemma4vec.data.rows.rows import Row
from gemma4vec.data.rows.text_bytes import to_bytes
from gemma4vec.text.prompts import Document

TextKind = Literal["all", "queries", "documents"]


class RowTexts(ABC):
    """T texts, in the order of their rows; within a row the query comes first."""

    @abstractmethod
    def __len__(self) -> int:
        """T."""

    @abstractmethod
    def hashes(self, seed: int) -> NDArray[np.int64]:
        """A hash of each text's bytes: `int64[T]`; `seed` is for rows that draw unique numbers instead."""

    @abstractmethod
    def document(self, number: int) -> Document:
        """Text `number`, from 0; a query is a document without a title."""


class TextsInMemory(RowTexts):
    """The texts of rows that are read one by one.

    Args:
        rows: the rows.
        which: whether queries, positives and negatives, or both are wanted.
    """

    def __init__(self, rows: Iterable[Row], which: TextKind):
        self._documents: list[Document] = []
        for row in rows:
            self._documents += [] if which == "documents" else [Document(row.query)]
            self._documents += [] if which == "queries" else [*row.pos, *row.neg]

    def __len__(self) -> int:
        return len(self._documents)

    def hashes(self, seed: int) -> NDArray[np.int64]:
        digests = b"".join(hashlib.blake2b(to_bytes(text), digest_size=8).digest() for text in self._documents)
        return np.frombuffer(digests, dtype="<i8")

    def document(self, number: int) -> Document:
        return self._documents[number]
