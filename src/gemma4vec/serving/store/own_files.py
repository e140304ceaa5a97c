"""A vector store in a folder of our own files, the default.

store.json          description, number of rows, the data folder and the checksums of its files
data-N/vectors.npy  float32[M, D], unit rows, memory-mapped
data-N/rows.arrow   id, title, text, content and scalar fields, memory-mapped
data-N/*.npy        codes of the index (`codes.py`), with checksums that are compared when the store is opened
staged/*.arrow      batches that were added since the last build

A build writes a new data folder; replacing `store.json` puts it in place.
"""

import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gemma4vec.errors import InputError
from gemma4vec.files import NPY_ERRORS, atomic_folder, check_writable, crc32_file, disk_errors, write_json
from gemma4vec.reading.json_values import load_own_json
from gemma4vec.retrieval.exact import search
from gemma4vec.serving.store.codes import FEWEST_DIMENSIONS, KINDS, Codes, make_codes, open_codes
from gemma4vec.serving.store.filters import Filter
from gemma4vec.serving.store.product_codes import INSTALL, has_faiss
from gemma4vec.serving.store.rows import PAYLOAD, Row, as_vector_column, row_schema, vectors_of
from gemma4vec.serving.store.staged_rows import FOLDER, StagedRows, map_arrow, merge_order, take_in_order
from gemma4vec.serving.store.store_meta import NoStoreError, Parameters, StoreMeta
from gemma4vec.serving.store.vector_file import map_vectors, npy_header
from gemma4vec.serving.store.vector_store import Candidates, Progress

STORE = "store.json"
VECTORS, ROWS = "vectors.npy", "rows.arrow"
EXACT_BELOW = 20_000  # rows; below it, exact search takes a few milliseconds (docs/guides/stores.md)
OVERSAMPLES = {
    "pq": (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64),
    "pca_binary": (2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128),
    "binary": (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128),
    "int8": (1, 2, 4, 8),
    "prefix": (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64),
}
_THREADS = min(os.cpu_count() or 1, 8)
REMEMBERED = 100_000  # rows of recent candidates
_BATCH = 8192

Vectors = NDArray[np.float32]
logger = logging.getLogger(__name__)


@dataclass
class _Data:
    """The files of one build, open."""

    vectors_MD: Vectors
    rows: pa.Table
    codes: Codes | None
    ids_of_chunks: list[pa.StringArray]  # asking the table for them takes longer than reading an id
    starts: NDArray[np.int64]  # first row of each chunk

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        """Return the ids of some rows; Arrow's own `take` goes through all chunks."""
        places = np.searchsorted(self.starts, rows, side="right") - 1
        pairs = zip(places.tolist(), (rows - self.starts[places]).tolist(), strict=True)
        return [self.ids_of_chunks[place][row].as_py() for place, row in pairs]


class OwnFiles:
    """A store in a folder. See `vector_store.VectorStore` for the members."""

    indexes = KINDS

    def __init__(self, folder: Path, meta: StoreMeta, state: dict[str, Any]) -> None:
        self.folder = folder
        self.meta = meta
        self._state = state
        self._data: _Data | None = None
        self._known: dict[str, str] | None = None
        self._places: dict[str, int] = {}
        self._lock: Any = None
        self._warned = False

    @classmethod
    def create(cls, folder: Path, meta: StoreMeta) -> "OwnFiles":
        """Make an empty store.

        Raises:
            InputError: the folder exists and is not empty.
        """
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder} exists and is not empty; drop it, or choose another folder")
        check_writable(folder)
        store = cls(folder, meta, {"data": None, "count": 0, "through": 0, "files": {}})
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        store._save()
        return store

    @classmethod
    def open(cls, folder: Path) -> "OwnFiles":
        """Open a store and compare the checksums of its codes.

        Raises:
            InputError: no store, or a damaged one.
        """
        if not (folder / STORE).is_file():
            raise NoStoreError(f"{folder} is no vector store (no {STORE}); build one with `gemma4vec index`")
        try:
            value = load_own_json(folder / STORE)
            state = {name: value.pop(name) for name in ("data", "count", "through", "files")}
            kinds = {"data": str | None, "count": int, "through": int, "files": dict}
            if wrong := next((name for name, kind in kinds.items() if not isinstance(state[name], kind)), None):
                raise TypeError(f"{wrong} is {str(state[wrong])[:40]!r}")
            store = cls(folder, StoreMeta.from_json(value), state)
            if store._state["data"] is not None:
                store._data = store._map(folder / store._state["data"])
        except (OSError, ValueError, TypeError, KeyError, EOFError, AttributeError) as error:
            raise InputError(
                f"the vector store {folder} is damaged ({' '.join(str(error).split())[:160]}); "
                "drop it and build it again"
            ) from error
        return store

    @property
    def location(self) -> str:
        """Its folder."""
        return str(self.folder)

    def add(self, rows: pa.RecordBatch) -> None:
        """Write the batch to `staged/`; it is searchable after the next build."""
        self._hold()
        known = self._contents()
        with disk_errors(self.folder):
            self._staged().write(rows)
        known.update(zip(rows.column("id").to_pylist(), rows.column("content").to_pylist(), strict=True))

    def contents(self, ids: Sequence[str]) -> dict[str, str]:
        """Content hashes of stored ids."""
        known = self._contents()
        return {identity: known[identity] or "" for identity in ids if identity in known}

    def count(self) -> int:
        """Number of rows, staged ones included."""
        return len(self._contents()) if self._staged().files() else int(self._state["count"])

    def build(self, index: str, progress: Progress) -> str:
        """Merge staged rows into a new data folder and make its codes."""
        self._hold()
        tables = [self._whole()] if self._data is not None else []
        staged = self._staged()
        through = staged.last()
        tables += staged.tables()
        positions = merge_order(tables)
        count, dimension = len(positions), self.meta.dimension
        kind = index if count else "exact"
        needed = count * dimension * 4 + sum(table.nbytes for table in tables)
        check_writable(self.folder, needed)
        number = int(str(self._state["data"] or "data-0").removeprefix("data-")) + 1
        with atomic_folder(self.folder / f"data-{number}") as part:
            self._write_rows(part, tables, positions, progress)
            vectors_MD = map_vectors(part / VECTORS, count, dimension)
            if kind != "exact":
                for name, array in make_codes(kind, vectors_MD).items():
                    np.save(part / f"{name}.npy", array, allow_pickle=False)
            sums = {path.name: crc32_file(path) for path in sorted(part.iterdir())}
        old = self._state["data"]
        self._data = None
        self._places.clear()
        self._state = {"data": f"data-{number}", "count": count, "through": through, "files": sums}
        self.meta = self.meta.indexed(kind, None)
        self._save()
        staged.remove(through)
        if old is not None:
            shutil.rmtree(self.folder / old, ignore_errors=True)
        self._data = self._map(self.folder / f"data-{number}")
        return kind

    def preferred(self) -> tuple[str, ...]:
        """Kinds of index to try in turn until one reaches the target."""
        if self.count() < EXACT_BELOW:
            return ("exact",)
        kinds = ("pq", "pca_binary", "binary", "pca") if has_faiss() else ("pca_binary", "binary", "pca")
        return tuple(kind for kind in kinds if self.meta.dimension >= FEWEST_DIMENSIONS[kind])

    def ladder(self) -> list[Parameters]:
        """Growing numbers of candidates for each wanted row."""
        if self.meta.index == "exact":
            return []
        return [{"oversample": times} for times in OVERSAMPLES.get(self.meta.index, OVERSAMPLES["prefix"])]

    def candidates(
        self, queries_ND: Vectors, count: int, where: Filter | None, parameters: Parameters | None
    ) -> list[Candidates]:
        """Codes choose rows, full-precision vectors order them."""
        data = self._opened()
        mask_M = None if where is None else where.mask(data.rows).to_numpy()
        if not len(data.vectors_MD) or (mask_M is not None and not mask_M.any()):
            return [Candidates([], np.empty((0, self.meta.dimension), np.float32), True) for _ in queries_ND]
        if parameters is None or data.codes is None:
            self._warn_without_codes(parameters is not None)
            rows = self._search_exactly(data, queries_ND, count, mask_M)
        else:
            codes, wanted = data.codes, count * max(int(parameters.get("oversample", 1)), 1)

            def find(query_D: Vectors) -> NDArray[np.int64]:
                near = codes.nearest(query_D, wanted, mask_M)
                scores_C = data.vectors_MD[near] @ query_D
                return near if len(near) <= count else near[np.argpartition(-scores_C, count - 1)[:count]]

            rows = _in_threads(find, queries_ND) if codes.parallel else [find(query_D) for query_D in queries_ND]
        matching = len(data.vectors_MD) if mask_M is None else int(mask_M.sum())
        return [self._candidates(data, row, len(row) >= matching) for row in rows]

    def scan(self, rows: int = _BATCH) -> Iterator[pa.RecordBatch]:
        """Ids and vectors in the order of the rows."""
        data = self._opened()
        for start in range(0, len(data.vectors_MD), rows):
            ids = data.rows.column("id").slice(start, rows).combine_chunks()
            ids = ids if isinstance(ids, pa.StringArray) else pa.concat_arrays(ids.chunks)
            vectors = as_vector_column(np.array(data.vectors_MD[start : start + rows]))
            yield pa.record_batch([ids, vectors], names=["id", "vector"])

    def rows(self, ids: Sequence[str]) -> list[Row]:
        """Rows by id."""
        data = self._opened()
        unknown = [identity for identity in ids if identity not in self._places]
        if unknown:
            found = pc.index_in(data.rows.column("id"), value_set=pa.array(unknown, pa.string()))
            at = np.flatnonzero(found.is_valid().to_numpy())
            names = [unknown[place] for place in found.drop_null().to_pylist()]
            self._places.update(zip(names, at.tolist(), strict=True))
        missing = [identity for identity in ids if identity not in self._places]
        if missing:
            raise InputError(f"{self.folder} has no row {missing[0][:80]!r}")
        found_rows = []
        for identity in ids:
            values = data.rows.slice(self._places[identity], 1).to_pylist()[0]
            fields = {name: values[name] for name in self.meta.fields}
            found_rows.append(Row(identity, values["title"], values["text"] or "", values["content"] or "", fields))
        return found_rows

    def describe(self, meta: StoreMeta) -> None:
        """Write the description."""
        self.meta = meta
        self._save()

    def verify(self) -> int:
        """Compare the checksums of all files; return their number.

        Raises:
            InputError: a file is damaged.
        """
        if self._state["data"] is None:
            return 0
        for name in self._state["files"]:
            self._check_sum(self.folder / self._state["data"], name)
        return len(self._state["files"])

    def close(self) -> None:
        """Unmap the files and release the lock."""
        self._data = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def drop(self) -> None:
        """Remove the folder."""
        self.close()
        with disk_errors(self.folder):
            shutil.rmtree(self.folder)

    def _save(self) -> None:
        write_json(self.folder / STORE, {**self.meta.as_json(), **self._state})

    def _hold(self) -> None:
        """Become the one process that changes the store."""
        from filelock import FileLock, Timeout

        if self._lock is None:
            lock = FileLock(self.folder / ".lock")
            with disk_errors(self.folder):
                try:
                    lock.acquire(timeout=0)
                except Timeout as error:  # an OSError, too
                    raise InputError(f"another process is changing {self.folder}; wait for it or stop it") from error
            self._lock = lock

    def _staged(self) -> StagedRows:
        return StagedRows(self.folder / FOLDER, int(self._state["through"]))

    def _contents(self) -> dict[str, str]:
        if self._known is None:
            self._known = {}
            for table in [*([self._data.rows] if self._data is not None else []), *self._staged().tables()]:
                ids, contents = table.column("id").to_pylist(), table.column("content").to_pylist()
                self._known.update(zip(ids, contents, strict=True))
        return self._known

    def _whole(self) -> pa.Table:
        """Return the built rows with their vectors."""
        data = self._opened()
        flat = pa.array(np.asarray(data.vectors_MD).reshape(-1))
        vectors = pa.FixedSizeListArray.from_arrays(flat, self.meta.dimension)
        return data.rows.add_column(1, pa.field("vector", vectors.type, nullable=False), vectors)

    def _write_rows(self, part: Path, tables: list[pa.Table], positions: NDArray[np.int64], progress: Progress) -> None:
        schema = row_schema(self.meta.dimension, self.meta.fields)
        whole = pa.concat_tables([table.select(schema.names).cast(schema) for table in tables]) if tables else None
        schema = schema.remove(schema.get_field_index("vector"))
        with (
            (part / VECTORS).open("wb") as vectors,
            (part / ROWS).open("wb") as stream,
            pa.ipc.new_file(stream, schema) as writer,
        ):
            vectors.write(npy_header(len(positions), self.meta.dimension))
            for done, table in enumerate(take_in_order(whole, positions, _BATCH) if whole is not None else ()):
                vectors_of(table).tofile(vectors)
                writer.write_table(table.drop_columns("vector").combine_chunks().cast(schema))
                progress(min((done + 1) * _BATCH, len(positions)), len(positions))

    def _map(self, folder: Path) -> _Data:
        """Map the files of a build; ValueError if they are damaged."""
        count, dimension = int(self._state["count"]), self.meta.dimension
        vectors_MD = map_vectors(folder / VECTORS, count, dimension)
        rows = map_arrow(folder / ROWS)
        if rows.num_rows != count or {"id", *PAYLOAD, *self.meta.fields} - set(rows.schema.names):
            raise ValueError(f"{ROWS} does not hold {count} rows with the store's fields")
        codes = None
        if self.meta.index != "exact" and (self.meta.index != "pq" or has_faiss()):
            arrays = {}
            for name in self._state["files"]:
                if name not in (VECTORS, ROWS):
                    self._check_sum(folder, name)
                    try:
                        arrays[name.removesuffix(".npy")] = np.load(folder / name, allow_pickle=False)
                    except NPY_ERRORS as error:
                        raise ValueError(f"{name} is damaged ({error})") from error
            codes = open_codes(self.meta.index, arrays, count, dimension)
        chunks = rows.column("id").chunks
        starts = np.cumsum([0, *(len(chunk) for chunk in chunks[:-1])])
        return _Data(vectors_MD, rows, codes, chunks, starts)

    def _warn_without_codes(self, wanted: bool) -> None:
        if wanted and not self._warned and self.meta.index == "pq":
            logger.warning(f"{self.folder}: its index pq needs faiss, so search is exact and slower; {INSTALL}")
            self._warned = True

    def _check_sum(self, folder: Path, name: str) -> None:
        if crc32_file(folder / name) != self._state["files"][name]:
            raise InputError(f"{folder / name} is damaged (its checksum differs); drop the store and build it again")

    def _opened(self) -> _Data:
        if self._data is None:
            raise InputError(f"{self.folder} has not been built yet; run `gemma4vec index` to its end")
        return self._data

    def _search_exactly(
        self, data: _Data, queries_ND: Vectors, count: int, mask_M: NDArray[np.bool_] | None
    ) -> list[NDArray[np.int64]]:
        if mask_M is None:
            return list(search(queries_ND, data.vectors_MD, min(count, len(data.vectors_MD))).indices)
        matching = np.flatnonzero(mask_M)
        best = min(count, len(matching))
        scores, places = np.empty((len(queries_ND), 0), np.float32), np.empty((len(queries_ND), 0), np.int64)
        for start in range(0, len(matching), _BATCH):
            part = matching[start : start + _BATCH]
            found = search(queries_ND, data.vectors_MD[part], min(best, len(part)))
            scores = np.concatenate([scores, found.scores], axis=1)
            places = np.concatenate([places, part[found.indices]], axis=1)
            order = np.argsort(-scores, axis=1, kind="stable")[:, :best]
            scores, places = np.take_along_axis(scores, order, 1), np.take_along_axis(places, order, 1)
        return list(places)

    def _candidates(self, data: _Data, rows: NDArray[np.int64], complete: bool) -> Candidates:
        ids = data.ids(rows)
        if len(self._places) > REMEMBERED:
            self._places = {}
        self._places.update(zip(ids, rows.tolist(), strict=True))
        return Candidates(ids, data.vectors_MD[rows], complete)


def _in_threads(find: Any, queries_ND: Vectors) -> list[NDArray[np.int64]]:
    """Call `find` for each query, several at once where there are many."""
    threads = min(_THREADS, len(queries_ND) // 4)
    if threads < 2:
        return [find(query_D) for query_D in queries_ND]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(find, queries_ND))
