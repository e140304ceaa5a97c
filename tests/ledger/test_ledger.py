"""Nothing that was written gets lost, nothing that was written changes."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gemma4vec.errors import InputError, WorkError
from gemma4vec.ledger import ledger as ledger_module
from gemma4vec.ledger.index import INDEX
from gemma4vec.ledger.journal import JOURNAL, Record, lock_journal
from gemma4vec.ledger.ledger import add, open_ledger
from gemma4vec.ledger.rebuild import rebuild

HERE = Path(__file__).resolve().parent
TIME = "2026-01-01T00:00:00.000000+00:00"


def note(name: str, text: str = "") -> Record:
    return Record(name, "note", TIME, {"text": text})


def ids(home: Path) -> list[str]:
    with open_ledger(home) as ledger:
        return [row["id"] for row in ledger.rows("SELECT id FROM records ORDER BY seq")]


def writer(home: Path, name: str, count: int) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(HERE.parent / "helpers" / "writers.py"), str(home), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def test_eight_processes_writing_at_once_lose_nothing(tmp_path: Path) -> None:
    processes = [writer(tmp_path, f"p{number}", 25) for number in range(8)]
    said = [line for process in processes for line in process.communicate()[0].split()]
    assert [process.returncode for process in processes] == [0] * 8
    assert len(said) == 200
    assert sorted(ids(tmp_path)) == sorted(said)
    (tmp_path / INDEX).unlink()
    assert sorted(ids(tmp_path)) == sorted(said)


def test_a_killed_writer_leaves_a_readable_ledger(tmp_path: Path) -> None:
    process = writer(tmp_path, "killed", 100_000)
    assert process.stdout is not None
    said = [process.stdout.readline().strip() for _ in range(20)]
    process.send_signal(signal.SIGKILL)
    said += process.stdout.read().split()
    process.wait()
    kept = ids(tmp_path)
    assert kept[: len(said)] == said
    assert len(kept) <= len(said) + 1  # the one that was written but not yet spoken of
    add(tmp_path, [note("after")])
    assert ids(tmp_path) == [*kept, "after"]


def test_a_torn_line_is_passed_over_and_ended(tmp_path: Path) -> None:
    add(tmp_path, [note("first")])
    with (tmp_path / JOURNAL).open("ab") as stream:
        stream.write(note("torn").line()[:-20])
    assert ids(tmp_path) == ["first"]
    add(tmp_path, [note("second")])
    assert ids(tmp_path) == ["first", "second"]


def test_what_a_kill_kept_out_of_the_index_is_added_at_the_next_opening(tmp_path: Path) -> None:
    add(tmp_path, [note("first")])
    with lock_journal(tmp_path, writing=True) as journal:
        journal.append([note("second")])  # killed here: before the index
    assert ids(tmp_path) == ["first", "second"]


def test_another_journal_is_read_from_its_beginning(tmp_path: Path) -> None:
    add(tmp_path, [note("old", "x" * 10)])
    (tmp_path / JOURNAL).write_bytes(note("new", "y" * 5000).line() + note("newer").line())
    assert ids(tmp_path) == ["old", "new", "newer"]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE records SET body = '{}'",
        "UPDATE records SET time = '' WHERE id = 'first'",
        "DELETE FROM records",
        "DELETE FROM records WHERE id = 'first'",
    ],
)
def test_records_cannot_be_changed_or_deleted(statement: str, tmp_path: Path) -> None:
    add(tmp_path, [note("first", "kept")])
    with closing(sqlite3.connect(tmp_path / INDEX)) as connection, pytest.raises(sqlite3.IntegrityError, match="never"):
        connection.execute(statement)


@pytest.mark.parametrize("values", ["(NULL, 'first', 'note', '', '{}')", "(1, 'other', 'note', '', '{}')"])
def test_records_cannot_be_replaced(values: str, tmp_path: Path) -> None:
    add(tmp_path, [note("first", "kept")])
    with closing(sqlite3.connect(tmp_path / INDEX)) as connection:
        connection.execute(f"INSERT OR REPLACE INTO records VALUES {values}")
        rows = connection.execute("SELECT id, body FROM records").fetchall()
    assert rows == [("first", '{"text": "kept"}')]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text())
def test_any_text_comes_back(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("home")
    add(home, [note("odd", text)])
    with open_ledger(home) as ledger:
        assert json.loads(ledger.value("SELECT body FROM records"))["text"] == text


@pytest.mark.parametrize(
    "text", ["line\nbreak\u2028and\x00nul\x1b[31m", "'; DROP TABLE records; --", "\ud800 alone", "🦜\t\r\n"]
)
def test_odd_texts(text: str, tmp_path: Path) -> None:
    add(tmp_path, [note("odd", text), note("next", float("nan"))])  # type: ignore[arg-type]
    with open_ledger(tmp_path) as ledger:
        rows = ledger.rows("SELECT body FROM records ORDER BY seq")
    first, second = (json.loads(row["body"])["text"] for row in rows)
    assert first == text.encode("utf-8", "replace").decode()
    assert second is None


@pytest.mark.parametrize("garbage", [b"this is no database at all " * 200, b""])
def test_a_damaged_index_is_one_line_and_can_be_made_again(garbage: bytes, tmp_path: Path) -> None:
    add(tmp_path, [note("first")])
    if garbage:
        (tmp_path / INDEX).write_bytes(garbage)
        for suffix in ("-wal", "-shm"):
            (tmp_path / f"{INDEX}{suffix}").unlink(missing_ok=True)
    else:
        with (tmp_path / INDEX).open("r+b") as stream:  # the pages behind the header
            stream.seek(100)
            stream.write(b"\xff" * 30_000)
    with pytest.raises(WorkError, match="gemma4vec runs rebuild") as refused, open_ledger(tmp_path) as ledger:
        ledger.rows("SELECT * FROM records")
    assert "\n" not in str(refused.value)
    with pytest.raises(WorkError, match="runs rebuild"):
        add(tmp_path, [note("second")])
    with open_ledger(tmp_path, tolerant=True) as ledger:
        assert len(ledger.rows("SELECT * FROM records")) == 2  # the journal has the second, too
    done = rebuild(tmp_path)
    assert done.kept_aside is not None and Path(done.kept_aside).exists()
    assert ids(tmp_path) == ["first", "second"]


def test_another_version_of_the_schema_is_one_line(tmp_path: Path) -> None:
    add(tmp_path, [note("first")])
    with closing(sqlite3.connect(tmp_path / INDEX)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(WorkError, match="version 99 of the schema"), open_ledger(tmp_path):
        pass
    rebuild(tmp_path)
    assert ids(tmp_path) == ["first"]


def test_a_folder_that_cannot_be_written_is_read_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(tmp_path, [note("first")])
    (tmp_path / JOURNAL).write_bytes((tmp_path / JOURNAL).read_bytes() + note("second").line())
    monkeypatch.setattr(ledger_module.os, "access", lambda *_: False)
    before = (tmp_path / INDEX).read_bytes()
    assert ids(tmp_path) == ["first", "second"]
    assert (tmp_path / INDEX).read_bytes() == before


def test_reading_where_nothing_was_recorded_writes_nothing(tmp_path: Path) -> None:
    assert ids(tmp_path / "none") == []
    assert not (tmp_path / "none").exists()


def test_a_lock_that_is_never_given_back_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gemma4vec.ledger.journal.PATIENCE_SECONDS", 0.05)
    started = time.monotonic()
    with lock_journal(tmp_path, writing=True), pytest.raises(WorkError, match="held by another process"):
        add(tmp_path, [note("first")])
    assert time.monotonic() - started < 25


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM records",
        "INSERT INTO records VALUES (9, 'x', 'x', 'x', '{}')",
        "DROP VIEW looks",
        "PRAGMA user_version = 7",
        "ATTACH '/tmp/x.db' AS x",
        "UPDATE journal_read SET bytes = 0",
        "SELECT 1; SELECT 2",
        "nonsense",
    ],
)
def test_a_persons_query_only_reads(query: str, tmp_path: Path) -> None:
    add(tmp_path, [note("first")])
    with open_ledger(tmp_path) as ledger:
        with pytest.raises(InputError, match="one SELECT"):
            ledger.select(query)
        assert ledger.select("SELECT id FROM records") == (["id"], [("first",)])
        assert ledger.select("SELECT metric FROM looks UNION SELECT run_id FROM runs") == (["metric"], [])
