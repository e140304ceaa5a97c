"""A search index: vectors and documents in a folder, searched by inner product.

Shapes: N queries, M documents, D dimension, K hits per query.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gemma4vec.errors import InputError
from gemma4vec.files import atomic_folder
from gemma4vec.serving.search.build_index import build_index
from gemma4vec.serving.search.documents import IndexedDocument, corpus_hash, write_documents
from gemma4vec.serving.search.storage import VECTORS, IndexMeta, check_unit_rows, make_vectors_header, read_index
from gemma4vec.text.text_embedder import TextEmbedder

if TYPE_CHECKING:
    from gemma4vec.serving.store.filters import FieldType, Filter

FIELDS: dict[str, "FieldType"] = {"path": "text", "line": "int"}


@dataclass(frozen=True)
class Hit:
    """One answer. `rank` counts from 1, `score` is the cosine."""

    rank: int
    score: float
    document: IndexedDocument

    def as_dict(self) -> dict[str, Any]:
        """Return rank, score and the document's set fields, for JSON."""
        fields = {name: value for name, value in asdict(self.document).items() if value is not None}
        return {"rank": self.rank, "score": round(self.score, 6), **fields}


class SearchIndex:
    """Documents with their vectors, open for search."""

    def __init__(
        self, folder: Path, meta: IndexMeta, vectors_MD: NDArray[np.float32], documents: Sequence[IndexedDocument]
    ) -> None:
        self.folder = folder
        self.meta = meta
        self.vectors_MD = vectors_MD
        self.documents = documents
        self._fields: Any = None

    @classmethod
    def open(cls, folder: Path, fingerprint: str | None = None) -> "SearchIndex":
        """Open the index in `folder`. With `fingerprint`, the index must come from that model.

        Raises:
            InputError: `folder` is not an index, is damaged, or another model built it.
        """
        meta, vectors_MD, documents = read_index(folder)
        if fingerprint is not None and meta.fingerprint != fingerprint:
            raise InputError(
                f"the search index {folder} was built by another model ({meta.model}, {meta.fingerprint[:12]}, "
                f"not {fingerprint[:12]}); delete {folder} and rebuild it"
            )
        return cls(folder, meta, vectors_MD, documents)

    @classmethod
    def build(
        cls,
        folder: Path,
        documents: Sequence[IndexedDocument],
        embedder: TextEmbedder,
        *,
        source: str | None = None,
        chunk: int = 512,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> "SearchIndex":
        """Embed `documents` into `folder`, or continue a killed build; see `build_index.build_index`."""
        build_index(folder, documents, embedder, source=source, chunk=chunk, progress=progress)
        return cls.open(folder)

    @classmethod
    def save(
        cls,
        folder: Path,
        documents: Sequence[IndexedDocument],
        vectors_MD: NDArray[np.float32],
        *,
        model: str,
        fingerprint: str,
        source: str | None = None,
    ) -> "SearchIndex":
        """Write an index of existing vectors [M, D], such as an evaluation's, atomically, and open it.

        Raises:
            WorkError: a vector is not finite or not of unit length, or the disk is full.
        """
        vectors_MD = np.ascontiguousarray(vectors_MD, dtype=np.float32)
        if vectors_MD.ndim != 2 or len(vectors_MD) != len(documents):
            raise ValueError(f"{len(documents)} documents, but vectors of shape {vectors_MD.shape}")
        check_unit_rows(vectors_MD, documents)
        meta = IndexMeta(model, fingerprint, vectors_MD.shape[1], len(documents), corpus_hash(documents), source)
        with atomic_folder(folder) as part:
            meta.write(part)
            write_documents(part, documents)
            with (part / VECTORS).open("wb") as stream:
                stream.write(make_vectors_header(meta))
                vectors_MD.tofile(stream)
        return cls.open(folder)

    @property
    def count(self) -> int:
        """Number of documents."""
        return self.meta.count

    def search(self, queries_ND: NDArray[np.float32], k: int, where: "Filter | None" = None) -> list[list[Hit]]:
        """Find the `k` documents with the largest inner product for each query [N, D], best first.

        Args:
            queries_ND: unit vectors of queries.
            k: number of documents.
            where: only documents that match; their fields are `path` (text) and `line` (int).

        Raises:
            InputError: `k` is below 1, the vectors have another dimension, or the filter has other fields.
        """
        from gemma4vec.retrieval.exact import search

        if k < 1:
            raise InputError(f"k is {k}; use at least 1")
        if queries_ND.ndim != 2 or queries_ND.shape[1] != self.meta.dimension:
            raise InputError(
                f"query vectors of shape {list(queries_ND.shape)} do not fit {self.folder}, whose vectors have "
                f"dimension {self.meta.dimension}; use the model that built it ({self.meta.model})"
            )
        if not self.meta.count:
            return [[] for _ in queries_ND]
        if where is None:
            indices_NK, scores_NK = search(queries_ND, self.vectors_MD, min(k, self.meta.count))
        else:
            rows_P = self._matching(where)
            if not len(rows_P):
                return [[] for _ in queries_ND]
            places_NK, scores_NK = search(queries_ND, self.vectors_MD[rows_P], min(k, len(rows_P)))
            indices_NK = rows_P[places_NK]
        return [
            [
                Hit(place + 1, float(score), self.documents[int(row)])
                for place, (row, score) in enumerate(zip(rows, scores, strict=True))
                if row >= 0
            ]
            for rows, scores in zip(indices_NK, scores_NK, strict=True)
        ]

    def _matching(self, where: "Filter") -> NDArray[np.int64]:
        """Return the rows that match a filter, in order."""
        import pyarrow as pa

        where.check(FIELDS)
        if self._fields is None:
            pairs = [(document.path, document.line) for document in self.documents]
            self._fields = pa.table(
                {
                    "path": pa.array([path for path, _ in pairs], pa.string()),
                    "line": pa.array([line for _, line in pairs], pa.int64()),
                }
            )
        return np.flatnonzero(where.mask(self._fields).to_numpy())
