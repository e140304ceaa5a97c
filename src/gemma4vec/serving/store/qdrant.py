"""A vector store in Qdrant: one collection whose metadata holds the description.

A point's id is a UUID made from the row's id, so that adding a row again replaces it. The client's local mode stores
pickles, so only tests use it; `open_store` connects to servers.
"""

import contextlib
import json
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gemma4vec.errors import InputError, WorkError
from gemma4vec.serving.store.filters import Comparison, FieldType, Filter
from gemma4vec.serving.store.rows import Row, as_vector_column, vectors_of
from gemma4vec.serving.store.store_meta import NoStoreError, Parameters, StoreMeta
from gemma4vec.serving.store.vector_store import Candidates, Progress

EXACT_BELOW = 10_000
EF_SEARCH = (64, 128, 256, 512, 1024)
_NAMESPACE = uuid.UUID("0e9e0c1c-7b5f-5f0c-9a54-6d3b8e1f2a77")
_META = "gemma4vec"
_POINTS = 256  # points of one request: 640 dimensions take about 3 MB as JSON
_READY_SECONDS = 3600


class QdrantStore:
    """A collection of Qdrant. See `vector_store.VectorStore` for the members."""

    indexes = ("hnsw",)

    def __init__(self, client: Any, name: str, meta: StoreMeta, where: str) -> None:
        self.client, self.name, self.meta, self._where = client, name, meta, where

    @classmethod
    def create(cls, client: Any, name: str, meta: StoreMeta, where: str) -> "QdrantStore":
        """Make an empty collection.

        Raises:
            InputError: it exists.
            WorkError: the server cannot be reached.
        """
        from qdrant_client import models

        store = cls(client, name, meta, where)
        with store._errors():
            if client.collection_exists(name):
                raise InputError(f"{store.location} exists; drop it, or choose another name")
            client.create_collection(
                name,
                vectors_config=models.VectorParams(size=meta.dimension, distance=models.Distance.DOT),
                metadata={_META: json.dumps(meta.as_json())},
            )
        return store

    @classmethod
    def open(cls, client: Any, name: str, where: str) -> "QdrantStore":
        """Open a collection.

        Raises:
            InputError: there is none, or it is not one of ours.
            WorkError: the server cannot be reached.
        """
        with _errors(f"{where}#{name}"):
            if not client.collection_exists(name):
                raise NoStoreError(f"{where}#{name} is no vector store; build one with `gemma4vec index`")
            metadata = client.get_collection(name).config.metadata or {}
        try:
            meta = StoreMeta.from_json(json.loads(metadata[_META]))
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{where}#{name} is no store of gemma4vec; choose another name") from error
        return cls(client, name, meta, where)

    @property
    def location(self) -> str:
        """`qdrant:URL#COLLECTION`."""
        return f"{self._where}#{self.name}"

    def add(self, rows: pa.RecordBatch) -> None:
        """Upsert the batch; a request that was stopped half-way is repeated as a whole."""
        from qdrant_client import models

        points = []
        plain = rows.drop_columns("vector").to_pylist()
        for values, vector_D in zip(plain, vectors_of(rows), strict=True):
            fields = {name: values[name] for name in self.meta.fields if values[name] is not None}
            payload = {name: values[name] for name in ("id", "title", "text", "content")}
            payload = {**payload, "fields": fields}
            points.append(models.PointStruct(id=_point(values["id"]), vector=vector_D.tolist(), payload=payload))
        with self._errors():
            for start in range(0, len(points), _POINTS):
                self.client.upsert(self.name, points[start : start + _POINTS], wait=True)

    def contents(self, ids: Sequence[str]) -> dict[str, str]:
        """Content hashes of stored ids."""
        return {point.payload["id"]: point.payload["content"] or "" for point in self._retrieve(ids)}

    def count(self) -> int:
        """Number of rows."""
        with self._errors():
            return int(self.client.count(self.name, exact=True).count)

    def build(self, index: str, progress: Progress) -> str:
        """Index the fields, and wait until the server has indexed the vectors."""
        from qdrant_client import models

        schemas: dict[FieldType, Any] = {
            "text": models.PayloadSchemaType.KEYWORD,
            "int": models.PayloadSchemaType.INTEGER,
            "float": models.PayloadSchemaType.FLOAT,
            "bool": models.PayloadSchemaType.BOOL,
        }
        count = self.count()
        with self._errors():
            if "Local" not in type(self.client._client).__name__:
                for name, kind in self.meta.fields.items():
                    self.client.create_payload_index(self.name, f"fields.{name}", schemas[kind], wait=True)
            deadline = time.monotonic() + _READY_SECONDS
            while index != "exact" and self.client.get_collection(self.name).status != models.CollectionStatus.GREEN:
                if time.monotonic() > deadline:
                    raise WorkError(f"{self.location} is still indexing after an hour; build again later")
                time.sleep(1)
        progress(count, count)
        return index

    def preferred(self) -> tuple[str, ...]:
        """Kinds of index to try in turn until one reaches the target."""
        return ("exact",) if self.count() < EXACT_BELOW else ("hnsw",)

    def ladder(self) -> list[Parameters]:
        """Growing lists of HNSW."""
        return [] if self.meta.index == "exact" else [{"ef_search": size} for size in EF_SEARCH]

    def candidates(
        self, queries_ND: NDArray[np.float32], count: int, where: Filter | None, parameters: Parameters | None
    ) -> list[Candidates]:
        """One request for all queries."""
        from qdrant_client import models

        search = models.SearchParams(exact=True)
        if parameters is not None:
            search = models.SearchParams(hnsw_ef=max(parameters["ef_search"], count))
        condition = None if where is None else _condition(where, self.meta.fields)
        requests = [
            models.QueryRequest(
                query=query_D.tolist(),
                filter=condition,
                limit=count,
                params=search,
                with_vector=True,
                with_payload=["id"],
            )
            for query_D in queries_ND
        ]
        with self._errors():
            answers = self.client.query_batch_points(self.name, requests)
        found = []
        for answer in answers:
            vectors_CD = np.array([point.vector for point in answer.points], np.float32)
            ids = [point.payload["id"] for point in answer.points]
            found.append(Candidates(ids, vectors_CD.reshape(-1, self.meta.dimension), len(ids) < count))
        return found

    def scan(self, rows: int = 8192) -> Iterator[pa.RecordBatch]:
        """Ids and vectors, a page at a time."""
        place: Any = None
        while True:
            with self._errors():
                points, place = self.client.scroll(
                    self.name, limit=min(rows, 1024), offset=place, with_payload=["id"], with_vectors=True
                )
            if points:
                vectors_RD = np.array([point.vector for point in points], np.float32)
                ids = pa.array([point.payload["id"] for point in points], pa.string())
                yield pa.record_batch([ids, as_vector_column(vectors_RD)], names=["id", "vector"])
            if place is None:
                return

    def rows(self, ids: Sequence[str]) -> list[Row]:
        """Rows by id."""
        found = {point.payload["id"]: point.payload for point in self._retrieve(ids)}
        missing = [identity for identity in ids if identity not in found]
        if missing:
            raise InputError(f"{self.location} has no row {missing[0][:80]!r}")
        made = []
        for identity in ids:
            payload = found[identity]
            fields = {name: payload["fields"].get(name) for name in self.meta.fields}
            made.append(Row(identity, payload["title"], payload["text"] or "", payload["content"] or "", fields))
        return made

    def describe(self, meta: StoreMeta) -> None:
        """Write the description."""
        with self._errors():
            self.client.update_collection(self.name, metadata={_META: json.dumps(meta.as_json())})
        self.meta = meta

    def close(self) -> None:
        """Close the client."""
        self.client.close()

    def drop(self) -> None:
        """Delete the collection."""
        with self._errors():
            self.client.delete_collection(self.name)

    def _retrieve(self, ids: Sequence[str]) -> list[Any]:
        with self._errors():
            return list(self.client.retrieve(self.name, [_point(one) for one in ids], with_payload=True)) if ids else []

    def _errors(self) -> contextlib.AbstractContextManager[None]:
        return _errors(self.location)


def connect(url: str) -> Any:
    """Connect to a Qdrant server. Its key is read from `QDRANT_API_KEY`.

    Raises:
        InputError: the package is not installed.
        WorkError: the server cannot be reached.
    """
    try:
        from qdrant_client import QdrantClient
    except ImportError as error:
        raise InputError('qdrant-client is not installed; pip install "gemma4vec[store]"') from error
    with _errors(f"qdrant:{url}"):
        return QdrantClient(url=url, api_key=os.environ.get("QDRANT_API_KEY"), timeout=60, check_compatibility=False)


def _point(identity: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, identity))


def _condition(where: Filter, fields: dict[str, FieldType]) -> Any:
    """Translate a filter into Qdrant's conditions."""
    from qdrant_client import models

    must: list[Any] = []
    must_not: list[Any] = []
    for one in where.comparisons:
        key = f"fields.{one.field}"
        if one.operator == "!=":
            # A missing field does not match, as in SQL.
            must_not += [_equal(key, one, fields), models.IsEmptyCondition(is_empty=models.PayloadField(key=key))]
        elif one.operator in ("=", "in"):
            must.append(_equal(key, one, fields))
        else:
            bound = {{"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}[one.operator]: float(one.value)}
            must.append(models.FieldCondition(key=key, range=models.Range(**bound)))
    return models.Filter(must=must or None, must_not=must_not or None)


def _equal(key: str, one: Comparison, fields: dict[str, FieldType]) -> Any:
    """Return the condition that the field equals one of the values."""
    from qdrant_client import models

    kind = fields[one.field]
    if kind == "float":
        ranges = [models.Range(gte=float(value), lte=float(value)) for value in one.values]
        return models.Filter(should=[models.FieldCondition(key=key, range=limits) for limits in ranges])
    if kind == "bool":
        matches = [models.FieldCondition(key=key, match=models.MatchValue(value=value)) for value in one.values]
        return models.Filter(should=matches)
    return models.FieldCondition(key=key, match=models.MatchAny(any=list(one.values)))


@contextlib.contextmanager
def _errors(location: str) -> Iterator[None]:
    """Turn the client's exceptions into one line."""
    from qdrant_client.http.exceptions import ApiException

    try:
        yield
    except (ApiException, ConnectionError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WorkError(f"{location} failed or cannot be reached ({reason}); check that it runs") from error
