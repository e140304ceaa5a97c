"""`events.jsonl` of a run that may be training: only complete lines count, and what was read is not read again."""

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gemma4vec.ledger.run_folder import EVENTS, Events, parse_events

_AT_ONCE = 1 << 20  # bytes
_KEPT = 8  # runs


def read_tail(file: Path, start: int) -> tuple[bytes, int]:
    """The complete lines from byte `start` on, and the byte after them. A torn last line waits for its end.

    A file that is shorter than `start` is another one, and is read from its beginning.

    Raises:
        OSError: the file is gone or cannot be read.
    """
    with file.open("rb") as stream:
        size = stream.seek(0, 2)
        start = start if 0 <= start <= size else 0
        stream.seek(start)
        data = b""
        while block := stream.read(_AT_ONCE):
            data += block
            end = data.rfind(b"\n") + 1
            if end:
                return data[:end], start + end
    return b"", start


@dataclass
class EventLog:
    """The events of one run so far."""

    file: Path
    offset: int = 0
    torn: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)

    def update(self) -> None:
        """Read what was appended. A missing file has no events."""
        while True:
            try:
                data, end = read_tail(self.file, self.offset)
            except OSError:
                self.offset, self.torn, self.events = 0, 0, []
                return
            if end < self.offset or (data and end - len(data) < self.offset):  # another file with the same name
                self.torn, self.events = 0, []
            self.offset = end
            if not data:
                return
            found = parse_events(data)
            self.torn += len(found.torn)
            self.events += found


class EventLogs:
    """The logs of the runs that were looked at last. Safe for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._logs: OrderedDict[Path, EventLog] = OrderedDict()

    def read(self, run: Path) -> tuple[Events, int]:
        """The events of a run, and the byte behind the last one; `.torn` says how many lines are damaged."""
        with self._lock:
            log = self._logs.setdefault(run, EventLog(run / EVENTS))
            self._logs.move_to_end(run)
            while len(self._logs) > _KEPT:
                self._logs.popitem(last=False)
            log.update()
            return Events(log.events, range(log.torn)), log.offset
