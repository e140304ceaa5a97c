"""Vectors of unchanged documents, reused when their corpus changes."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from gemma4vec.serving.search.documents import IndexedDocument
from gemma4vec.text.prompts import Document

Vectors = NDArray[np.float32]


class KnownVectors:
    """Vectors of one model, by text and title."""

    def __init__(self) -> None:
        self._rows: dict[bytes, Vectors] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, documents: Iterable[IndexedDocument], vectors_MD: Vectors) -> None:
        """Add the vectors of `documents`. With fewer vectors than documents, they belong to the first documents."""
        for document, vector_D in zip(documents, vectors_MD, strict=False):
            self._rows[_key(document)] = vector_D

    def find(self, documents: Sequence[IndexedDocument], dimension: int) -> tuple[Vectors, list[int]]:
        """Return vectors [M, D] of `documents`, and the rows that are unknown and still zero."""
        vectors_MD = np.zeros((len(documents), dimension), dtype="<f4")
        missing = []
        for row, document in enumerate(documents):
            known_D = self._rows.get(_key(document))
            if known_D is None:
                missing.append(row)
            else:
                vectors_MD[row] = known_D
        return vectors_MD, missing


def embedder_inputs(documents: Sequence[IndexedDocument], rows: Sequence[int]) -> list[str | Document]:
    """Return text and title of the documents in `rows`, for the embedder."""
    return [documents[row].as_document() for row in rows]


def _key(document: IndexedDocument) -> bytes:
    return hashlib.sha256(repr((document.text, document.title)).encode("utf-8", "surrogatepass")).digest()
