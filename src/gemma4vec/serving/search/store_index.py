"""Searching a vector store as if it were an index folder: hits with documents."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gemma4vec.errors import InputError
from gemma4vec.model.inference.truncated_embedder import TruncatedEmbedder
from gemma4vec.serving.search.documents import IndexedDocument
from gemma4vec.serving.search.index import Hit, SearchIndex
from gemma4vec.serving.search.storage import META
from gemma4vec.serving.store.filters import Filter
from gemma4vec.serving.store.open_store import open_store, parse_location
from gemma4vec.serving.store.rows import Row
from gemma4vec.serving.store.search_store import search_store
from gemma4vec.serving.store.vector_store import VectorStore
from gemma4vec.text.text_embedder import TextEmbedder


class StoreIndex:
    """A store, open for search."""

    def __init__(self, store: VectorStore, *, exact: bool = False) -> None:
        """Search `store` by its index, or with `exact` all of its rows."""
        self.store, self.exact = store, exact

    @property
    def count(self) -> int:
        """Number of documents."""
        return self.store.count()

    def about(self) -> str:
        """Return one line: the store, its index and the recall that was measured."""
        meta = self.store.meta
        measured = "its recall was not measured" if meta.gate is None else meta.gate.line()
        return f"{self.store.location}: {self.count:,} rows, index {meta.index}, {measured}"

    def search(self, queries_ND: NDArray[np.float32], k: int, where: Filter | None = None) -> list[list[Hit]]:
        """Find the `k` documents with the largest inner product for each query [N, D], best first.

        Raises:
            InputError: see `search_store`.
            WorkError: the store cannot be reached.
        """
        results = search_store(self.store, queries_ND, k, where, exact=self.exact)
        ids = list(dict.fromkeys(found.id for row in results for found in row))
        rows = dict(zip(ids, self.store.rows(ids), strict=True)) if ids else {}
        return [
            [Hit(place + 1, found.score, _document(rows[found.id])) for place, found in enumerate(row)]
            for row in results
        ]


def fit_dimension(embedder: TextEmbedder, dimension: int) -> TextEmbedder:
    """Return the embedder with vectors of `dimension`, their leading numbers.

    Raises:
        InputError: the model's vectors are shorter.
    """
    if dimension > embedder.dimension:
        raise InputError(
            f"vectors of dimension {dimension}, but {embedder.name} has {embedder.dimension}; use its model"
        )
    return embedder if dimension == embedder.dimension else TruncatedEmbedder(embedder, dimension)


def open_for(
    embedder: TextEmbedder, location: str, *, exact: bool = False
) -> tuple[TextEmbedder, SearchIndex | StoreIndex]:
    """Open an index or store of the model, and fit the model to its dimension.

    Raises:
        InputError, WorkError: as `open_index_at`.
    """
    index = open_index_at(location, exact=exact)
    meta = index.meta if isinstance(index, SearchIndex) else index.store.meta
    if meta.dimension <= embedder.dimension:
        embedder = fit_dimension(embedder, meta.dimension)
    if isinstance(index, StoreIndex):
        index.store.meta.check_model(embedder.fingerprint, location=index.store.location)
    elif meta.fingerprint != embedder.fingerprint:
        index = SearchIndex.open(index.folder, embedder.fingerprint)
    return embedder, index


def open_index_at(location: str, fingerprint: str | None = None, *, exact: bool = False) -> SearchIndex | StoreIndex:
    """Open an index folder or a vector store; with `fingerprint`, that model must have made it.

    Raises:
        InputError: no index and no store, a damaged one, one of another model, or a missing package.
        WorkError: a database that cannot be reached.
    """
    found = parse_location(location)
    if found.kind == "files" and (Path(found.address) / META).is_file():
        return SearchIndex.open(Path(found.address), fingerprint)
    return StoreIndex(open_store(location, fingerprint), exact=exact)


def _document(row: Row) -> IndexedDocument:
    path, line = row.fields.get("path"), row.fields.get("line")
    return IndexedDocument(
        row.id,
        row.text,
        row.title,
        path if isinstance(path, str) else None,
        line if isinstance(line, int) and not isinstance(line, bool) else None,
    )
