"""The ledger: runs, looks, comparisons and decisions below one outputs' home. Append-only, safe for several processes.

`ledger.jsonl` (the journal) is written and flushed first, then `ledger.sqlite` (the index). Opening adds the records
that the index lacks after a kill, so the two cannot diverge (docs/concepts/ledger.md).
"""

import contextlib
import logging
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gemma4vec.errors import InputError, WorkError
from gemma4vec.ledger.index import (
    INDEX,
    catch_up,
    connect,
    damaged_index_error,
    database_errors,
    insert,
    make_schema,
    open_index,
    read_records,
)
from gemma4vec.ledger.journal import JOURNAL, Journal, Record, lock_journal

logger = logging.getLogger(__name__)

_READS = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_RECURSIVE,
}


_warned: set[str] = set()


class NotIndexedError(WorkError):
    """The journal has the records, the index lacks them until it is made again."""

    def __init__(self, reason: WorkError, identity: str | None):
        super().__init__(str(reason))
        self.identity = identity


class Ledger:
    """The open ledger, for reading; see `open_ledger`."""

    def __init__(
        self, connection: sqlite3.Connection, path: Path, instead: Callable[[], sqlite3.Connection] | None = None
    ):
        self._connection = connection
        self._instead = instead  # opens what is read if the index turns out to be damaged
        self.path = path

    def close(self) -> None:
        """Close the index."""
        self._connection.close()

    def rows(self, query: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Return the rows of a query as dictionaries."""
        try:
            with database_errors(self.path):
                return [dict(row) for row in self._connection.execute(query, tuple(parameters))]
        except WorkError as error:
            if self._instead is None:
                raise
            _warn_once(str(error))
            self._connection.close()
            self._connection, self._instead = self._instead(), None
            return self.rows(query, parameters)

    def value(self, query: str, parameters: Sequence[Any] = ()) -> Any:
        """Return the first column of the first row; None if there is no row."""
        rows = self.rows(query, parameters)
        return next(iter(rows[0].values())) if rows else None

    def select(self, query: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Run a person's own query, read-only; return its columns and rows.

        Raises:
            InputError: not SQL, several statements, or one that would write.
        """
        self._connection.set_authorizer(
            lambda action, *_: sqlite3.SQLITE_OK if action in _READS else sqlite3.SQLITE_DENY
        )
        try:
            cursor = self._connection.execute(query)
            rows = [tuple(row) for row in cursor]
        except (sqlite3.Error, sqlite3.Warning) as error:
            views = "runs, run_states, evaluations, looks, comparisons, decisions, freezes, locks, records"
            raise InputError(f"{error}; give one SELECT over {views}") from error
        finally:
            self._connection.set_authorizer(None)
        return [column[0] for column in cursor.description or ()], rows


def add(home: Path, records: Sequence[Record]) -> str | None:
    """Append records: to the journal, then to the index. Return the ledger's identity.

    What the journal has lost since it was last read comes back first, so that the order of events stays.

    Raises:
        WorkError: the journal cannot be written: nothing is recorded.
        NotIndexedError: the index cannot be written; the journal has the records.
    """
    with lock_journal(home, writing=True) as journal, _os_errors(home / JOURNAL):
        with contextlib.ExitStack() as stack:
            failure: WorkError | None = None
            connection: sqlite3.Connection | None = None
            try:
                connection = stack.enter_context(contextlib.closing(open_index(home / INDEX)))
                _catch_up(connection, journal, home)
            except WorkError as error:
                failure = error  # the journal is written nevertheless
            journal.append(records)
            identity = journal.identity()
            try:
                if failure is None and connection is not None:
                    _catch_up(connection, journal, home)
            except WorkError as error:
                failure = error
        if failure is not None:
            raise NotIndexedError(failure, identity)
        return identity


def identity_of(home: Path) -> str | None:
    """Return the identity of the ledger below `home`, by which results name it; None if there is none.

    Raises:
        WorkError: it cannot be read.
    """
    missing = (FileNotFoundError, NotADirectoryError)
    with contextlib.suppress(*missing), _os_errors(home / JOURNAL), lock_journal(home, writing=False) as journal:
        return journal.identity()
    return None


@contextlib.contextmanager
def open_ledger(home: Path, *, tolerant: bool = False) -> Iterator[Ledger]:
    """Open the ledger below `home` for reading, brought up to date; empty if there is none.

    If the folder cannot be written, the index is made in memory from the journal. With `tolerant`, a damaged index is
    handled in the same way, so that an evaluation can always read it.

    Raises:
        WorkError: the index is damaged.
    """
    ledger = Ledger(_opened(home, tolerant), home / INDEX, (lambda: _in_memory(home)) if tolerant else None)
    with contextlib.closing(ledger):
        yield ledger


def _opened(home: Path, tolerant: bool) -> sqlite3.Connection:
    if not (home / JOURNAL).exists() and not (home / INDEX).exists():
        return _in_memory(home)
    if os.access(home, os.W_OK):
        try:
            with lock_journal(home, writing=True) as journal:
                connection = open_index(home / INDEX)
                try:
                    _catch_up(connection, journal, home)
                except BaseException:
                    connection.close()
                    raise
                return connection
        except (WorkError, OSError) as error:
            if not tolerant:
                raise
            _warn_once(" ".join(str(error).split()))
    return _in_memory(home)


def _in_memory(home: Path) -> sqlite3.Connection:
    """Make an index in memory from the one on disk, if readable, and the journal."""
    connection = connect(":memory:")
    make_schema(connection)
    with contextlib.suppress(sqlite3.Error, ValueError):
        if (home / INDEX).is_file():
            # Immutable: opens in a read-only folder. Rows that are only in its WAL are in the journal too.
            with contextlib.closing(connect(f"{(home / INDEX).resolve().as_uri()}?immutable=1", uri=True)) as disk:
                insert(connection, read_records(disk))
    missing = (FileNotFoundError, NotADirectoryError)
    with contextlib.suppress(*missing), _os_errors(home / JOURNAL), lock_journal(home, writing=False) as journal:
        catch_up(connection, journal, restore=False)
    return connection


def _catch_up(connection: sqlite3.Connection, journal: Journal, home: Path) -> None:
    """Bring the index up to date, and say what was damaged or lost."""
    try:
        with _os_errors(home / JOURNAL), database_errors(home / INDEX):
            restored = catch_up(connection, journal)
    except (ValueError, TypeError, RecursionError) as error:  # bodies that are no JSON, a table without its row
        raise damaged_index_error(home / INDEX, error) from error
    if restored:
        _warn_once(f"{home / JOURNAL} had lost {restored:,} records; it has them again, from {INDEX}")
    if journal.damaged:
        _warn_once(f"{home / JOURNAL}: {journal.damaged:,} damaged lines hold no record and are skipped")


def _warn_once(line: str) -> None:
    if line not in _warned:
        _warned.add(line)
        logger.warning(f"warning: {line}")


@contextlib.contextmanager
def _os_errors(path: Path) -> Iterator[None]:
    """Turn errors of the disk into one line; a missing file is left to the caller."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise WorkError(f"{path}: {error.strerror or error}; free space or make it readable and writable") from error


def now() -> str:
    """Return the time in the ledger's form: ISO 8601 in UTC with microseconds, which sorts as text."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def new_id() -> str:
    """Return a random id for a look or decision."""
    return secrets.token_hex(8)
