"""Make the index again, from the journal, the readable part of the old index, and the run and result folders.

No count is lost: a record of either file is kept, also if its run was deleted.
"""

import contextlib
import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from gemma4vec.errors import InputError
from gemma4vec.files import disk_errors
from gemma4vec.ledger.index import INDEX, catch_up, connect, database_errors, open_index, read_records
from gemma4vec.ledger.journal import Journal, Record, lock_journal
from gemma4vec.ledger.ledger import add, open_ledger
from gemma4vec.ledger.records import decision_record, evaluation_folders, evaluation_record, run_folders, run_record


@dataclass(frozen=True)
class RebuildReport:
    """Outcome of a rebuild.

    Attributes:
        records: number of records in the ledger now.
        from_index: number of records that were only in the old index.
        from_folders: number of records that were only in folders.
        damaged: folders that could not be read, each with its reason.
        kept_aside: new path of a damaged index.
    """

    records: int
    from_index: int
    from_folders: int
    damaged: list[str]
    kept_aside: str | None


def rebuild(home: Path) -> RebuildReport:
    """Make the index again.

    Raises:
        WorkError: the folder cannot be written.
    """
    with lock_journal(home, writing=True) as journal, disk_errors(home / INDEX):
        saved, aside = _salvage(home, journal)
        connection = open_index(home / INDEX)
        with contextlib.closing(connection), database_errors(home / INDEX):
            catch_up(connection, journal)
    found, damaged = _folders(home)
    with open_ledger(home) as ledger:
        known = {row["id"] for row in ledger.rows("SELECT id FROM records")}
    new = [record for record in found if record.id not in known]
    if new:
        add(home, new)
    with open_ledger(home) as ledger:
        count = ledger.value("SELECT count(*) FROM records")
    return RebuildReport(count, saved, len(new), damaged, str(aside) if aside else None)


def _salvage(home: Path, journal: Journal) -> tuple[int, Path | None]:
    """Append to the journal what only the old index has, then remove the index, or move it aside if it is damaged."""
    path = home / INDEX
    if not path.exists():
        return 0, None
    records: list[Record] = []
    aside = None
    try:
        with contextlib.closing(connect(str(path))) as connection:
            records = read_records(connection)
            if connection.execute("PRAGMA quick_check").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError("quick_check")
    except (sqlite3.Error, ValueError):
        aside = path.with_name(f"{INDEX}.damaged-{os.getpid()}")
    known = {record.id for record in journal.read()[0]}
    journal.damaged = 0  # the index's own reading counts them
    lost = [record for record in records if record.id not in known]
    if lost:
        journal.append(lost)
    if aside is not None:
        os.replace(path, aside)
    for name in (INDEX, f"{INDEX}-wal", f"{INDEX}-shm"):
        (home / name).unlink(missing_ok=True)
    return len(lost), aside


def _folders(home: Path) -> tuple[list[Record], list[str]]:
    """Return the records of every run and result below `home`, and of those elsewhere that the ledger has."""
    with open_ledger(home) as ledger:
        elsewhere = [Path(row["path"]) for row in ledger.rows("SELECT path FROM runs")]
        elsewhere += [Path(row["folder"]) for row in ledger.rows("SELECT DISTINCT folder FROM evaluations")]
    roots = [home.resolve(), *(path for path in elsewhere if not path.is_relative_to(home.resolve()))]
    records: dict[str, Record] = {}
    damaged = []
    for root in roots:
        for run in run_folders(root):
            decision = decision_record(run.path)
            try:
                found_run = run_record(run)
            except InputError as error:
                damaged.append(str(error))
                continue
            for record in [found_run, *([decision] if decision else [])]:
                records.setdefault(record.id, record)
        for folder in evaluation_folders(root):
            try:
                found = evaluation_record(folder)
            except InputError as error:
                damaged.append(str(error))
                continue
            for record in found:
                records.setdefault(record.id, record)
    return sorted(records.values(), key=lambda record: (record.time, record.id)), damaged
