"""The journal: `ledger.jsonl`, every record of the ledger as one line, appended, flushed to the disk, never changed.

It is what survives: the SQLite file beside it is made from it, and no run folder's deletion touches it. Whoever writes
holds a lock on the file (`flock`, which the system takes back when a process dies), so that lines of several processes
never mix; a line that a kill tore is ended by the next writer and passed over by readers.
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
from gemma4vec.files import disk_errors
from gemma4vec.ledger.run_folder import replace_nonfinite

JOURNAL = "ledger.jsonl"
PATIENCE_SECONDS = 30.0  # a writer holds the lock for milliseconds; longer means that one was stopped, not that it died


@dataclass(frozen=True)
class Record:
    """One line of the ledger.

    Attributes:
        id: unique; a record whose id is there already is the same record and is not added again.
        kind: run, evaluation, look, comparison, decision, freeze or lock.
        time: of what is recorded, ISO 8601 in UTC.
        body: the rest, as JSON values.
    """

    id: str
    kind: str
    time: str
    body: dict[str, Any]

    def line(self) -> bytes:
        """The record as one line of JSON; characters that UTF-8 cannot hold become question marks."""
        plain = replace_nonfinite({"id": self.id, "kind": self.kind, "time": self.time, "body": self.body})
        return json.dumps(plain, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace") + b"\n"


class Journal:
    """The open and locked journal; made by `lock_journal`."""

    def __init__(self, descriptor: int):
        self._descriptor = descriptor

    def append(self, records: Iterable[Record]) -> None:
        """Append records with one write and wait until the disk has them."""
        data = b"".join(record.line() for record in records)
        size = os.fstat(self._descriptor).st_size
        if size and os.pread(self._descriptor, 1, size - 1) != b"\n":
            data = b"\n" + data  # ends the line that a kill tore, so that it cannot swallow this one
        while data:  # a disk that fills up takes part of a write and refuses the next
            data = data[os.write(self._descriptor, data) :]
        os.fsync(self._descriptor)

    def read(self, start: int = 0) -> tuple[list[Record], int]:
        """The whole records from byte `start` on, and the byte behind the last complete line."""
        data, place = bytearray(), start
        while block := os.pread(self._descriptor, 1 << 20, place):
            data += block
            place += len(block)
        end = data.rfind(b"\n") + 1
        return [record for line in bytes(data[:end]).split(b"\n") if (record := _parse(line))], start + end

    def head(self) -> str | None:
        """What tells this journal from another one: its first line's beginning; None where there is none yet."""
        line, newline, _ = os.pread(self._descriptor, 4096, 0).partition(b"\n")
        return line.hex() if newline or len(line) == 4096 else None


@contextlib.contextmanager
def lock_journal(home: Path, *, writing: bool) -> Iterator[Journal]:
    """The journal below `home`, locked; made if it is missing and `writing`.

    Raises:
        FileNotFoundError: there is none and it is not to be written.
        WorkError: it cannot be opened, or another process does not let go of it.
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
                    f"{path} is held by another process for {PATIENCE_SECONDS:.0f} s; is one stopped? (fuser {path})"
                ) from None
            time.sleep(0.002)
        except OSError:
            return None  # a file system without locks; appends of one write each are then the protection


def _parse(line: bytes) -> Record | None:
    """The record on a line; None for an empty or torn one."""
    try:
        value = json.loads(line.decode("utf-8"))
        record = Record(value["id"], value["kind"], value["time"], value["body"])
    except (ValueError, KeyError, TypeError):
        return None
    texts = (record.id, record.kind, record.time)
    return record if all(isinstance(text, str) for text in texts) and isinstance(record.body, dict) else None
