"""The index: `ledger.sqlite`, the journal's records as SQL.

Triggers keep the rows of its one table, `records`, from being changed or deleted. Views read their JSON: `runs` (each
run as last recorded), `run_states` (each time it was recorded), `evaluations`, `looks` (one row for each metric seen),
`comparisons`, `decisions`, `freezes`, `locks`. The index is made from the journal and can always be made again.
"""

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from gemma4vec.errors import WorkError
from gemma4vec.ledger.journal import Journal, Record
from gemma4vec.ledger.run_folder import replace_nonfinite

INDEX = "ledger.sqlite"
SCHEMA_VERSION = 1
BUSY_SECONDS = 30.0

_COLUMNS = {
    "run_states": (
        "run",
        "run_id name recipe_id created status seed hypothesis path parents data base code machine cost results recipe",
    ),
    "evaluations": (
        "evaluation",
        "look model suite suite_fingerprint role model_fingerprint run_id recipe_id folder mean settings",
    ),
    "comparisons": (
        "comparison",
        "suite suite_fingerprint metric a b fingerprint_a fingerprint_b difference p family verdict",
    ),
    "decisions": ("decision", "run_id recipe_id decision words"),
    "freezes": ("freeze", "recipe_id run_id words"),
    "locks": ("lock", "suite suite_fingerprint words"),
}
_LOOK = "model suite suite_fingerprint role model_fingerprint run_id recipe_id"


def _fields(names: str) -> str:
    return ", ".join(f"json_extract(body, '$.{name}') AS {name}" for name in names.split())


_VIEWS = [
    f"CREATE VIEW {view} AS SELECT seq, id, time, {_fields(names)} FROM records WHERE kind = '{kind}'"
    for view, (kind, names) in _COLUMNS.items()
]
_SCHEMA = [
    """CREATE TABLE records (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, time TEXT NOT NULL,
       body TEXT NOT NULL CHECK (json_valid(body)))""",
    "CREATE INDEX records_by_kind ON records (kind, time)",
    "CREATE TABLE journal_read (head TEXT, bytes INTEGER NOT NULL, tail TEXT)",
    "INSERT INTO journal_read VALUES (NULL, 0, NULL)",
    """CREATE TRIGGER records_never_change BEFORE UPDATE ON records
       BEGIN SELECT RAISE(ABORT, 'records of the ledger never change'); END""",
    """CREATE TRIGGER records_are_never_deleted BEFORE DELETE ON records
       BEGIN SELECT RAISE(ABORT, 'records of the ledger are never deleted'); END""",
    # INSERT OR REPLACE deletes without firing the trigger above; this one keeps the existing row.
    """CREATE TRIGGER records_are_never_replaced BEFORE INSERT ON records
       WHEN EXISTS (SELECT 1 FROM records WHERE id = NEW.id OR seq = NEW.seq) BEGIN SELECT RAISE(IGNORE); END""",
    *_VIEWS,
    """CREATE VIEW runs AS SELECT * FROM (
         SELECT *, row_number() OVER (PARTITION BY run_id ORDER BY time DESC, seq DESC) AS place FROM run_states)
       WHERE place = 1""",
    f"""CREATE VIEW looks AS SELECT records.seq, records.id, records.time, metric.value AS metric, {_fields(_LOOK)}
        FROM records, json_each(records.body, '$.metrics') AS metric WHERE kind = 'look'""",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
]


def damaged_index_error(path: Path, reason: object) -> WorkError:
    """Return the error for an index that cannot be read."""
    return WorkError(f"{path} is damaged ({reason}); nothing is lost; make it again with: gemma4vec runs rebuild")


@contextlib.contextmanager
def database_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into one line with the remedy."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise WorkError(f"{path} is locked by another program ({error}); close that one and try again") from error
        if "readonly" in str(error) or "unable to open" in str(error) or "full" in str(error):
            raise WorkError(f"{path} cannot be written ({error}); free space or make it writable") from error
        raise damaged_index_error(path, error) from error
    except sqlite3.DatabaseError as error:
        raise damaged_index_error(path, error) from error


def open_index(path: Path) -> sqlite3.Connection:
    """Open the index, or create it; the caller holds the journal's lock.

    Raises:
        WorkError: damaged, of another version, or not writable.
    """
    with database_errors(path):
        connection = connect(str(path))
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            # A power cut can take the last rows from the index; the journal still has them.
            connection.execute("PRAGMA synchronous = NORMAL")
            make_schema(connection)
            version = connection.execute("PRAGMA user_version").fetchone()[0]
        except BaseException:
            connection.close()
            raise
    if version != SCHEMA_VERSION:
        connection.close()
        raise WorkError(
            f"{path} has version {version} of the schema, this gemma4vec knows {SCHEMA_VERSION}; update gemma4vec, or "
            "make the index again with: gemma4vec runs rebuild"
        )
    return connection


def connect(target: str, *, uri: bool = False) -> sqlite3.Connection:
    """Connect with a timeout for locks, and replace bytes that are not UTF-8."""
    connection = sqlite3.connect(target, timeout=BUSY_SECONDS, isolation_level=None, uri=uri)
    connection.row_factory = sqlite3.Row
    connection.text_factory = lambda data: data.decode("utf-8", "replace")
    return connection


def make_schema(connection: sqlite3.Connection) -> None:
    """Create tables, triggers and views in an empty database, all or none; add the column that older ones lack."""
    if connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is not None:
        columns = [row["name"] for row in connection.execute("PRAGMA table_info(journal_read)")]
        if columns and "tail" not in columns:
            connection.execute("ALTER TABLE journal_read ADD COLUMN tail TEXT")
        return
    connection.execute("BEGIN IMMEDIATE")
    for statement in _SCHEMA:
        connection.execute(statement)
    connection.execute("COMMIT")


def insert(connection: sqlite3.Connection, records: Iterable[Record]) -> None:
    """Insert the records that are missing."""
    connection.executemany(
        "INSERT INTO records (id, kind, time, body) VALUES (?, ?, ?, ?)",
        [tuple(map(_storable, (one.id, one.kind, one.time, _as_json(one.body)))) for one in records],
    )


def _as_json(body: dict[str, Any]) -> str:
    return json.dumps(replace_nonfinite(body), ensure_ascii=False, allow_nan=False)


def _storable(text: str) -> str:
    """Replace what UTF-8 cannot encode: a damaged line may hold half of a surrogate pair."""
    return text.encode("utf-8", "replace").decode("utf-8")


def catch_up(connection: sqlite3.Connection, journal: Journal, *, restore: bool = True) -> int:
    """Insert the journal's records that the index lacks, in one transaction; the caller holds the journal's lock.

    The journal is read from where it was read before. If it is shorter, or has another first line, or another line at
    that place (a backup, a merge, an edit), it is read whole: known ids are skipped, and with `restore` the journal
    gets back the records that only the index has.

    Returns:
        Number of records that the journal got back.
    """
    head = journal.head()
    known, start, tail = connection.execute("SELECT head, bytes, tail FROM journal_read").fetchone()
    whole = known != head or journal.tail(start) != tail
    if whole:
        start = 0
    records, end = journal.read(start)
    if end == start and not whole:
        return 0
    lost: list[Record] = []
    if whole and restore:
        kept = {record.id for record in records}
        lost = [record for record in read_records(connection) if record.id not in kept]
        if lost:
            journal.append(lost)
            head, end = journal.head(), journal.size()
    connection.execute("BEGIN IMMEDIATE")
    try:
        insert(connection, records)
        connection.execute("UPDATE journal_read SET head = ?, bytes = ?, tail = ?", (head, end, journal.tail(end)))
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return len(lost)


def read_records(connection: sqlite3.Connection) -> list[Record]:
    """Return all records in insertion order."""
    rows = connection.execute("SELECT id, kind, time, body FROM records ORDER BY seq")
    return [Record(row["id"], row["kind"], row["time"], json.loads(row["body"])) for row in rows]
