"""A vector store in an embedded LanceDB: one table in a local folder, and its description in a JSON file next to it.

A batch is one commit (`merge_insert` by id), so a killed process leaves whole batches alone. A build compacts the table
and removes old versions, which LanceDB itself never does; a lock keeps two builds apart.
"""

import contextlib
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gemma4vec.errors import InputError, WorkError
from gemma4vec.files import disk_errors, write_json
from gemma4vec.reading.json_values import load_own_json
from gemma4vec.serving.store.filters import Comparison, Filter
from gemma4vec.serving.store.rows import Row, row_schema, vectors_of
from gemma4vec.serving.store.store_meta import NoStoreError, Parameters, StoreMeta
from gemma4vec.serving.store.vector_store import Candidates, Progress

if TYPE_CHECKING:
    from lancedb.expr import Expr

EXACT_BELOW = 20_000
NPROBES = (4, 8, 16, 32, 64, 128, 256)
REFINE = {"ivf_flat": 1, "ivf_sq": 4, "ivf_pq": 20}
KEPT = timedelta(minutes=10)  # of old versions, which other processes may still be reading
_METADATA = ".gemma4vec.json"


class LanceStore:
    """A table of LanceDB. See `vector_store.VectorStore` for the members."""

    indexes = ("ivf_sq", "ivf_pq", "ivf_flat")

    def __init__(self, folder: Path, name: str, meta: StoreMeta, table: Any) -> None:
        self.folder, self.name, self.meta, self._table = folder, name, meta, table

    @classmethod
    def create(cls, folder: Path, name: str, meta: StoreMeta) -> "LanceStore":
        """Make an empty table.

        Raises:
            InputError: it exists, or LanceDB is not installed.
        """
        if (folder / f"{name}{_METADATA}").exists():
            raise InputError(f"lance:{folder}#{name} exists; drop it, or choose another name")
        connect = _import()
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / f"{name}{_METADATA}", meta.as_json())
        with _errors(f"lance:{folder}#{name}"):
            database = connect(str(folder))
            database.drop_table(name, ignore_missing=True)
            table = database.create_table(name, schema=row_schema(meta.dimension, meta.fields))
        return cls(folder, name, meta, table)

    @classmethod
    def open(cls, folder: Path, name: str) -> "LanceStore":
        """Open a table.

        Raises:
            InputError: there is none, it is damaged, or LanceDB is not installed.
        """
        file = folder / f"{name}{_METADATA}"
        if not file.is_file():
            raise NoStoreError(f"lance:{folder}#{name} is no vector store; build one with `gemma4vec index`")
        connect = _import()
        try:
            meta = StoreMeta.from_json(load_own_json(file))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(f"{file} is damaged ({error}); drop the store and build it again") from error
        with _errors(f"lance:{folder}#{name}"):
            database = connect(str(folder))
            try:
                table = database.open_table(name)
            except ValueError:
                # A process that was killed between the two steps of `create` left the description alone.
                table = database.create_table(name, schema=row_schema(meta.dimension, meta.fields))
        return cls(folder, name, meta, table)

    @property
    def location(self) -> str:
        """`lance:FOLDER#TABLE`."""
        return f"lance:{self.folder}#{self.name}"

    def add(self, rows: pa.RecordBatch) -> None:
        """Merge the batch by id, as one commit."""
        with _errors(self.location), disk_errors(self.folder):
            merge = self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            merge.execute(pa.Table.from_batches([rows]))

    def contents(self, ids: Sequence[str]) -> dict[str, str]:
        """Content hashes of stored ids."""
        found = self._select(ids, ["id", "content"])
        return {row["id"]: row["content"] or "" for row in found}

    def count(self) -> int:
        """Number of rows."""
        with _errors(self.location):
            return int(self._table.count_rows())

    def build(self, index: str, progress: Progress) -> str:
        """Compact the table and index it."""
        from filelock import FileLock, Timeout

        count = self.count()
        lock = FileLock(self.folder / f".{self.name}.lock")
        try:
            with lock.acquire(timeout=0), _errors(self.location), disk_errors(self.folder):
                for old in self._table.list_indices():
                    self._table.drop_index(old.name)
                if index != "exact" and count:
                    self._table.create_index("vector", config=_config(index, self.meta.dimension), replace=True)
                self._table.optimize(cleanup_older_than=KEPT)
                self._table.checkout_latest()
        except Timeout as error:
            raise InputError(f"another process is building {self.location}; wait for it or stop it") from error
        progress(count, count)
        return index

    def preferred(self) -> tuple[str, ...]:
        """Kinds of index to try in turn until one reaches the target."""
        return ("exact",) if self.count() < EXACT_BELOW else ("ivf_sq",)

    def ladder(self) -> list[Parameters]:
        """Growing numbers of partitions that are read."""
        if self.meta.index == "exact":
            return []
        return [{"nprobes": probes, "refine": REFINE[self.meta.index]} for probes in NPROBES]

    def candidates(
        self, queries_ND: NDArray[np.float32], count: int, where: Filter | None, parameters: Parameters | None
    ) -> list[Candidates]:
        """One search of the table for each query."""
        found = []
        with _errors(self.location):
            for query_D in queries_ND:
                query = self._table.search(query_D, vector_column_name="vector").distance_type("dot")
                query = query.select(["id", "vector", "_distance"]).limit(count)
                if parameters is None:
                    query = query.bypass_vector_index()
                else:
                    query = query.nprobes(parameters["nprobes"]).refine_factor(parameters["refine"])
                if where is not None:
                    query = query.where(_expression(where), prefilter=True)
                rows = query.to_arrow()
                ids = rows.column("id").to_pylist()
                found.append(Candidates(ids, vectors_of(rows), len(ids) < count))
        return found

    def scan(self, rows: int = 8192) -> Iterator[pa.RecordBatch]:
        """Ids and vectors of the whole table."""
        with _errors(self.location):
            reader = self._table.search().select(["id", "vector"]).to_batches(rows)
            for batch in reader:
                yield batch.select(["id", "vector"])

    def rows(self, ids: Sequence[str]) -> list[Row]:
        """Rows by id."""
        names = ["id", "title", "text", "content", *self.meta.fields]
        found = {row["id"]: row for row in self._select(ids, names)}
        missing = [identity for identity in ids if identity not in found]
        if missing:
            raise InputError(f"{self.location} has no row {missing[0][:80]!r}")
        return [
            Row(
                identity,
                found[identity]["title"],
                found[identity]["text"] or "",
                found[identity]["content"] or "",
                {name: found[identity][name] for name in self.meta.fields},
            )
            for identity in ids
        ]

    def describe(self, meta: StoreMeta) -> None:
        """Write the description."""
        self.meta = meta
        write_json(self.folder / f"{self.name}{_METADATA}", meta.as_json())

    def close(self) -> None:
        """Nothing is held."""

    def drop(self) -> None:
        """Drop the table, then its description."""
        with _errors(self.location), disk_errors(self.folder):
            _import()(str(self.folder)).drop_table(self.name, ignore_missing=True)
            (self.folder / f"{self.name}{_METADATA}").unlink(missing_ok=True)

    def _select(self, ids: Sequence[str], columns: list[str]) -> list[dict[str, Any]]:
        if not ids:
            return []
        wanted = _expression(Filter((Comparison("id", "in", tuple(ids)),)))
        with _errors(self.location):
            return list(self._table.search().where(wanted).select(columns).limit(len(ids)).to_list())


def _config(index: str, dimension: int) -> Any:
    from lancedb.index import IvfFlat, IvfPq, IvfSq

    if index == "ivf_pq":
        parts = max(1, dimension // 8)
        while dimension % parts:
            parts -= 1
        return IvfPq(distance_type="dot", num_sub_vectors=parts)
    return {"ivf_flat": IvfFlat, "ivf_sq": IvfSq}[index](distance_type="dot")


def _expression(where: Filter) -> "Expr":
    """Translate a filter into LanceDB's typed expression; no text is put together."""
    from lancedb.expr import col, lit

    whole: Expr | None = None
    for one in where.comparisons:
        column = col(one.field)
        if one.operator == "in":
            expression = column.isin([lit(value) for value in one.values])
        else:
            method = {"=": "eq", "!=": "ne", "<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}[one.operator]
            expression = getattr(column, method)(lit(one.value))
        whole = expression if whole is None else whole & expression
    if whole is None:
        raise ValueError("an empty filter")
    return whole


def _import() -> Any:
    try:
        from lancedb import connect
    except ImportError as error:
        raise InputError('LanceDB is not installed; pip install "gemma4vec[store]"') from error
    return connect


@contextlib.contextmanager
def _errors(location: str) -> Iterator[None]:
    """Turn LanceDB's exceptions into one line."""
    try:
        yield
    except (RuntimeError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = " ".join(str(error).split())[:200]
        raise WorkError(f"{location}: LanceDB failed ({reason}); check the folder, or build the store again") from error
