"""The journal: `ledger.jsonl`, every record of the ledger as one line, appended, flushed to the disk, never changed.

The SQLite index is made from it, and deleting run folders does not change it. A writer holds a lock on the file
(`flock`, which the system releases when a process dies), so lines of several processes never mix. If a kill leaves a
partial line, the next writer ends it and readers skip it.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemma4vec.errors import WorkError
from gemma4vec.files import disk_errors, sha256_text
from gemma4vec.ledger.run_folder import replace_nonfinite

JOURNAL = "ledger.jsonl"
_TAIL_BYTES = 1 << 16
PATIENCE_SECONDS = 30.0  # a writer needs milliseconds; a longer wait means that one is suspended, not dead


@dataclass(frozen=True)
class Record:
    """One line of the ledger.

    Attributes:
        id: unique; a record with a known id is the same record and is not added again.
        kind: run, evaluation, look, comparison, decision, freeze, lock, suite, opening, exposure or slice.
        time: of the recorded event, ISO 8601 in UTC.
        body: the rest, as JSON values.
    """

    id: str
    kind: str
    time: str
    body: dict[str, Any]

    def line(self) -> bytes:
        """Return the record as one line of JSON; characters that UTF-8 cannot encode become question marks."""
        plain = replace_nonfinite({"id": self.id, "kind": self.kind, "time": self.time, "body": self.body})
        return json.dumps(plain, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace") + b"\n"


class Journal:
    """The open and locked journal; see `lock_journal`."""

    def __init__(self, descriptor: int):
        self._descriptor = descriptor
        self.damaged = 0  # lines that were read and hold no record

    def append(self, records: Iterable[Record]) -> None:
        """Append records with one write, and flush them to the disk."""
        data = b"".join(record.line() for record in records)
        size = os.fstat(self._descriptor).st_size
        if size and os.pread(self._descriptor, 1, size - 1) != b"\n":
            data = b"\n" + data  # end a partial line of a killed process, so that it does not join this one
        while data:  # a disk that fills up accepts part of a write and refuses the next
            data = data[os.write(self._descriptor, data) :]
        os.fsync(self._descriptor)

    def read(self, start: int = 0) -> tuple[list[Record], int]:
        """Return the complete records from byte `start` on, and the position after the last complete line."""
        data, place = bytearray(), start
        while block := os.pread(self._descriptor, 1 << 20, place):
            data += block
            place += len(block)
        end = data.rfind(b"\n") + 1
        lines = [line for line in bytes(data[:end]).split(b"\n") if line.strip()]
        records = [record for line in lines if (record := _parse(line))]
        self.damaged += len(lines) - len(records)
        return records, start + end

    def size(self) -> int:
        """Return the length in bytes."""
        return os.fstat(self._descriptor).st_size

    def tail(self, end: int) -> str | None:
        """Return a hash of the last line before byte `end`; None if no line ends there."""
        start = max(0, end - _TAIL_BYTES)
        data = os.pread(self._descriptor, end - start, start)
        if not end or len(data) < end - start or not data.endswith(b"\n"):
            return None
        return sha256_text(data[data.rfind(b"\n", 0, -1) + 1 :].hex())[:16]

    def identity(self) -> str | None:
        """Return the name of this ledger in results: a hash of its first line; None if it has no line yet."""
        head = self.head()
        return sha256_text(head)[:12] if head else None

    def head(self) -> str | None:
        """Return an identity of this journal, the start of its first line in hex; None if it has no line yet."""
        line, newline, _ = os.pread(self._descriptor, 4096, 0).partition(b"\n")
        return line.hex() if newline or len(line) == 4096 else None


@contextlib.contextmanager
def lock_journal(home: Path, *, writing: bool) -> Iterator[Journal]:
    """Lock the journal below `home`; create it if it is missing and `writing` is true.

    Raises:
        FileNotFoundError: there is none, and `writing` is false.
        WorkError: it cannot be opened, or another process does not release it.
    """
    path = home / JOURNAL
    if writing:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    else:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _lock(descriptor, path)
        yield Journal(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise WorkError(
                    f"{path} is held by another process for {PATIENCE_SECONDS:.0f} s; is it suspended? (fuser {path})"
                ) from None
            time.sleep(0.002)
        except OSError:
            return None  # a file system without locks; single-write appends are then the only protection


def _parse(line: bytes) -> Record | None:
    """Return the record on a line; None for an empty or partial one."""
    try:
        value = json.loads(line.decode("utf-8"))
        record = Record(value["id"], value["kind"], value["time"], value["body"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    texts = (record.id, record.kind, record.time)
    return record if all(isinstance(text, str) for text in texts) and isinstance(record.body, dict) else None
