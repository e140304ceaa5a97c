"""A vector store in PostgreSQL with pgvector: one table, and one row of `gemma4vec_stores` with its description.

A batch is one transaction that upserts by id, so a killed process leaves whole batches alone. Values are always bound,
names are `psycopg.sql.Identifier`s.

Index "hnsw" is on fp16 copies (`halfvec`), "bit" on signs; the fp32 vectors order what either finds.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gemma4vec.errors import InputError, WorkError
from gemma4vec.serving.store.filters import FieldType, Filter
from gemma4vec.serving.store.rows import PAYLOAD, Row, as_vector_column, vectors_of
from gemma4vec.serving.store.store_meta import NoStoreError, Parameters, StoreMeta
from gemma4vec.serving.store.vector_store import Candidates, Progress

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.sql import Composed

EXACT_BELOW = 10_000
EF_SEARCH = (40, 80, 160, 320, 640, 1000)
OVERSAMPLES = (4, 8, 16, 32, 64)
MOST_DIMENSIONS = {"hnsw": 4000, "bit": 64_000}  # of pgvector's HNSW on halfvec and on bit
_CATALOG = "gemma4vec_stores"
_MAKE_CATALOG = "CREATE TABLE IF NOT EXISTS {} (name text PRIMARY KEY, meta jsonb NOT NULL)"
_TYPES: dict[FieldType, str] = {
    "text": 'text COLLATE "C"',
    "int": "bigint",
    "float": "double precision",
    "bool": "boolean",
}
_OPERATORS = {"=": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_COPIED = {"text": "text", "int": "int8", "float": "float8", "bool": "bool"}
_ANY = {"text": "text[]", "int": "bigint[]", "float": "double precision[]", "bool": "boolean[]"}
CONNECT_SECONDS = 10


class PostgresStore:
    """A table of PostgreSQL. See `vector_store.VectorStore` for the members."""

    indexes = ("hnsw", "bit")

    def __init__(self, url: str, name: str, meta: StoreMeta, connection: "Connection[Any]") -> None:
        self.url, self.name, self.meta, self._connection = url, name, meta, connection

    @classmethod
    def create(cls, url: str, name: str, meta: StoreMeta) -> "PostgresStore":
        """Make an empty table.

        Raises:
            InputError: it exists, or the package or the extension `vector` is missing.
            WorkError: the database cannot be reached.
        """
        connection = _connect(url)
        from psycopg.sql import SQL, Identifier

        store = cls(url, name, meta, connection)
        columns = [SQL('id text COLLATE "C" PRIMARY KEY'), SQL("vector vector({}) NOT NULL").format(meta.dimension)]
        columns += [SQL("{} text").format(Identifier(column)) for column in PAYLOAD]
        columns += [SQL("{} ").format(Identifier(column)) + SQL(_TYPES[kind]) for column, kind in meta.fields.items()]
        with store._errors(), connection.transaction():
            connection.execute(SQL(_MAKE_CATALOG).format(Identifier(_CATALOG)))
            exists = connection.execute("SELECT to_regclass(quote_ident(%s)) IS NOT NULL", [name]).fetchone()
            if exists and exists[0]:
                raise InputError(f"{store.location} exists; drop it, or choose another name")
            connection.execute(SQL("CREATE TABLE {} ({})").format(Identifier(name), SQL(", ").join(columns)))
            store._write_meta(meta)
        return store

    @classmethod
    def open(cls, url: str, name: str) -> "PostgresStore":
        """Open a table.

        Raises:
            InputError: there is none, or the package or the extension `vector` is missing.
            WorkError: the database cannot be reached.
        """
        connection = _connect(url)
        from psycopg.sql import SQL, Identifier

        with _errors(show_location(url, name)), connection.transaction():
            known = connection.execute("SELECT to_regclass(%s) IS NOT NULL", [_CATALOG]).fetchone()
            query = SQL("SELECT meta FROM {} WHERE name = %s").format(Identifier(_CATALOG))
            row = connection.execute(query, [name]).fetchone() if known and known[0] else None
        if row is None:
            connection.close()
            raise NoStoreError(f"{show_location(url, name)} is no vector store; build one with `gemma4vec index`")
        try:
            meta = StoreMeta.from_json(row[0])
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{show_location(url, name)}: its description is damaged ({error}); drop it") from error
        return cls(url, name, meta, connection)

    @property
    def location(self) -> str:
        """`postgresql://HOST/DATABASE#TABLE`, without user and password."""
        return show_location(self.url, self.name)

    def add(self, rows: pa.RecordBatch) -> None:
        """Upsert the batch in one transaction."""
        from pgvector import Vector
        from psycopg.sql import SQL, Identifier

        names = ["id", "vector", *PAYLOAD, *self.meta.fields]
        columns = SQL(", ").join(Identifier(name) for name in names)
        updates = SQL(", ").join(SQL("{0} = EXCLUDED.{0}").format(Identifier(name)) for name in names[1:])
        values = [rows.column(name).to_pylist() for name in names if name != "vector"]
        values.insert(1, [Vector(vector_D) for vector_D in vectors_of(rows)])
        types = ["text", "vector", *["text"] * len(PAYLOAD)]
        types += [_COPIED[kind] for kind in self.meta.fields.values()]
        with self._errors(), self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.execute(
                SQL("CREATE TEMP TABLE gemma4vec_incoming (LIKE {}) ON COMMIT DROP").format(Identifier(self.name))
            )
            copy_statement = SQL("COPY gemma4vec_incoming ({}) FROM STDIN WITH (FORMAT BINARY)").format(columns)
            with cursor.copy(copy_statement) as copy:
                copy.set_types(types)
                for row in zip(*values, strict=True):
                    copy.write_row(row)
            cursor.execute(
                SQL("INSERT INTO {} ({}) SELECT {} FROM gemma4vec_incoming ON CONFLICT (id) DO UPDATE SET {}").format(
                    Identifier(self.name), columns, columns, updates
                )
            )

    def contents(self, ids: Sequence[str]) -> dict[str, str]:
        """Content hashes of stored ids."""
        rows = self._fetch("SELECT id, content FROM {table} WHERE id = ANY(%s)", [list(ids)])
        return {identity: content or "" for identity, content in rows}

    def count(self) -> int:
        """Number of rows."""
        return int(self._fetch("SELECT count(*) FROM {table}", [])[0][0])

    def build(self, index: str, progress: Progress) -> str:
        """Drop the index and make the new one."""
        from psycopg.sql import SQL, Identifier

        limit = MOST_DIMENSIONS.get(index)
        if limit is not None and self.meta.dimension > limit:
            raise InputError(f"index {index} of pgvector takes {limit:,} dimensions at most; use bit or exact")
        count = self.count()
        index_name = Identifier(f"{self.name}_vector_index")
        size = self.meta.dimension
        with self._errors(), self._connection.transaction():
            self._connection.execute(SQL("DROP INDEX IF EXISTS {}").format(index_name))
            self._connection.execute("SELECT set_config('maintenance_work_mem', '1GB', true)")
            if index != "exact":
                method = {
                    "hnsw": SQL("((vector::halfvec({})) halfvec_ip_ops)").format(size),
                    "bit": SQL("((binary_quantize(vector)::bit({})) bit_hamming_ops)").format(size),
                }[index]
                self._connection.execute(
                    SQL("CREATE INDEX {} ON {} USING hnsw ").format(index_name, Identifier(self.name)) + method
                )
            self._connection.execute(SQL("ANALYZE {}").format(Identifier(self.name)))
        progress(count, count)
        return index

    def preferred(self) -> tuple[str, ...]:
        """Kinds of index to try in turn until one reaches the target."""
        if self.count() < EXACT_BELOW:
            return ("exact",)
        return ("hnsw",) if self.meta.dimension <= MOST_DIMENSIONS["hnsw"] else ("bit",)

    def ladder(self) -> list[Parameters]:
        """Growing lists of HNSW, or growing numbers of candidates for each wanted row."""
        if self.meta.index == "hnsw":
            return [{"ef_search": size, "oversample": 2} for size in EF_SEARCH]
        if self.meta.index == "bit":
            return [{"ef_search": 200, "oversample": times} for times in OVERSAMPLES]
        return []

    def candidates(
        self, queries_ND: NDArray[np.float32], count: int, where: Filter | None, parameters: Parameters | None
    ) -> list[Candidates]:
        """The index finds rows, the fp32 vectors order them."""
        from pgvector import Vector
        from psycopg.sql import SQL

        condition, bound = self._condition(where)
        size = self.meta.dimension
        if parameters is None:
            query = self._sql("SELECT id, vector FROM {table} WHERE ") + condition
            query += SQL(" ORDER BY vector <#> %s, id LIMIT %s")
        else:
            near = {
                "hnsw": SQL("vector::halfvec({0}) <#> %s::halfvec({0})").format(size),
                "bit": SQL("binary_quantize(vector)::bit({0}) <~> binary_quantize(%s)::bit({0})").format(size),
            }[self.meta.index]
            query = self._sql("SELECT id, vector FROM (SELECT id, vector FROM {table} WHERE ") + condition
            query += SQL(" ORDER BY ") + near + SQL(" LIMIT %s) AS near ORDER BY vector <#> %s, id LIMIT %s")
        found = []
        with self._errors(), self._connection.transaction():
            self._set_search(parameters, count)
            for query_D in queries_ND:
                vector = Vector(query_D)
                values = [vector, count]
                if parameters is not None:
                    values = [vector, parameters["oversample"] * count, vector, count]
                rows = self._connection.execute(query, [*bound, *values], binary=True).fetchall()
                vectors_CD = np.array([vector.to_numpy() for _, vector in rows], np.float32).reshape(-1, size)
                found.append(Candidates([identity for identity, _ in rows], vectors_CD, len(rows) < count))
        return found

    def scan(self, rows: int = 8192) -> Iterator[pa.RecordBatch]:
        """Ids and vectors by a cursor on the server."""
        with (
            self._errors(),
            self._connection.transaction(),
            self._connection.cursor(name="gemma4vec_scan", binary=True) as cursor,
        ):
            cursor.execute(self._sql("SELECT id, vector FROM {table}"))
            while batch := cursor.fetchmany(rows):
                vectors_RD = np.array([vector.to_numpy() for _, vector in batch], np.float32)
                ids = pa.array([identity for identity, _ in batch], pa.string())
                yield pa.record_batch([ids, as_vector_column(vectors_RD)], names=["id", "vector"])

    def rows(self, ids: Sequence[str]) -> list[Row]:
        """Rows by id."""
        from psycopg.sql import SQL, Identifier

        columns = SQL(", ").join(Identifier(name) for name in ("id", *PAYLOAD, *self.meta.fields))
        query = SQL("SELECT ") + columns + self._sql(" FROM {table} WHERE id = ANY(%s)")
        with self._errors(), self._connection.transaction():
            found = {row[0]: row for row in self._connection.execute(query, [list(ids)]).fetchall()}
        missing = [identity for identity in ids if identity not in found]
        if missing:
            raise InputError(f"{self.location} has no row {missing[0][:80]!r}")
        made = []
        for identity in ids:
            _, title, text, content, *values = found[identity]
            fields = dict(zip(self.meta.fields, values, strict=True))
            made.append(Row(identity, title, text or "", content or "", fields))
        return made

    def describe(self, meta: StoreMeta) -> None:
        """Write the description."""
        with self._errors(), self._connection.transaction():
            self._write_meta(meta)
        self.meta = meta

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def drop(self) -> None:
        """Drop the table and its description."""
        from psycopg.sql import SQL, Identifier

        with self._errors(), self._connection.transaction():
            self._connection.execute(self._sql("DROP TABLE {table}"))
            query = SQL("DELETE FROM {} WHERE name = %s").format(Identifier(_CATALOG))
            self._connection.execute(query, [self.name])
        self.close()

    def _write_meta(self, meta: StoreMeta) -> None:
        from psycopg.sql import SQL, Identifier
        from psycopg.types.json import Jsonb

        query = SQL("INSERT INTO {} VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET meta = EXCLUDED.meta")
        self._connection.execute(query.format(Identifier(_CATALOG)), [self.name, Jsonb(meta.as_json())])

    def _condition(self, where: Filter | None) -> tuple["Composed", list[Any]]:
        """Return the condition of a filter and its bound values."""
        from psycopg.sql import SQL, Composed, Identifier

        parts: list[Any] = [SQL("true")]
        values: list[Any] = []
        for one in where.comparisons if where is not None else ():
            kind = self.meta.fields[one.field]
            bound = [float(value) if kind == "float" else value for value in one.values]
            if one.operator == "in":
                parts.append(SQL("{} = ANY(%s::{})").format(Identifier(one.field), SQL(_ANY[kind])))
                values.append(bound)
            else:
                parts.append(Identifier(one.field) + SQL(f" {_OPERATORS[one.operator]} %s"))
                values.append(bound[0])
        return Composed([SQL(" AND ").join(parts)]), values

    def _set_search(self, parameters: Parameters | None, count: int) -> None:
        """Set what holds for the searches of this transaction."""
        settings = {"enable_indexscan": "off"}
        if parameters is not None:
            wanted = max(parameters["ef_search"], min(1000, parameters["oversample"] * count))
            # An iterative scan goes on until enough rows match a filter (pgvector 0.8).
            settings = {"hnsw.ef_search": str(wanted), "hnsw.iterative_scan": "strict_order", "enable_seqscan": "off"}
        for name, value in settings.items():
            self._connection.execute("SELECT set_config(%s, %s, true)", [name, value])

    def _sql(self, statement: str) -> "Composed":
        from psycopg.sql import SQL, Identifier

        return SQL(statement).format(table=Identifier(self.name))

    def _fetch(self, statement: str, values: list[Any]) -> list[Any]:
        with self._errors(), self._connection.transaction():
            return self._connection.execute(self._sql(statement), values).fetchall()

    def _errors(self) -> contextlib.AbstractContextManager[None]:
        return _errors(self.location)


def show_location(url: str, name: str) -> str:
    """Return the location without user, password and options."""
    parts = urlsplit(url)
    where = (parts.hostname or "") + (f":{parts.port}" if parts.port else "")
    return f"postgresql://{where}{parts.path}#{name}"


def _connect(url: str) -> "Connection[Any]":
    try:
        import psycopg
        from pgvector.psycopg import register_vector
    except ImportError as error:
        raise InputError('psycopg or pgvector is not installed; pip install "gemma4vec[store]"') from error
    where = show_location(url, "").removesuffix("#")
    with _errors(where):
        try:
            connection = psycopg.connect(url, connect_timeout=CONNECT_SECONDS, autocommit=True)
        except psycopg.ProgrammingError as error:
            raise InputError(f"{where}: the URL is not one of PostgreSQL; postgresql://USER@HOST/DATABASE") from error
        try:
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            register_vector(connection)
        except psycopg.Error as error:
            connection.close()
            reason = " ".join(str(error).split())[:160]
            raise InputError(f"{where} has no pgvector ({reason}); install it: CREATE EXTENSION vector") from error
    return connection


@contextlib.contextmanager
def _errors(location: str) -> Iterator[None]:
    """Turn psycopg's exceptions into one line."""
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        reason = " ".join(str(error).split())[:200]
        if isinstance(error, psycopg.OperationalError):
            raise WorkError(f"{location} cannot be reached ({reason}); check the address and that it runs") from error
        raise WorkError(f"{location}: PostgreSQL failed ({reason})") from error
