"""What a part of `gpu` finds, written as it is found, and the end of a part whose time is up.

A limit must end a part wherever it is: inside a compiler that takes any exception for a failure of its own, or inside a
kernel, where no signal is heard. So the part's own watch does it, in a thread, by ending the process.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.shared.record import say, write_result

STOPPED = 3  # exit code of a part that its limit ended


def said_of(error: Exception, longest: int = 300) -> str:
    """An error's type and the beginning of what it says."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:longest]}"


class Found(dict[str, Any]):
    """The findings of one part. `keep` writes them; what a part puts in without it is written with the next ones.

    Args:
        name: of the result file.
        about: what stands in the result before any finding.
        results: folder of result files.
        limit: seconds that the part may take, from now; None for no limit.
    """

    def __init__(self, name: str, about: dict[str, Any], results: Path, limit: float | None = None):
        super().__init__()
        self._name, self._about, self._results, self._limit = name, about, results, limit
        self._started = time.monotonic()
        self._kept: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._watch: threading.Timer | None = None
        if limit is not None:
            self._watch = threading.Timer(limit, self._time_is_up)
            self._watch.daemon = True
            self._watch.start()

    def keep(self, **more: Any) -> None:
        """Add these, and write all that there is."""
        self.update(more)
        plain = json.loads(json.dumps(self))  # a copy: the time may be up while the next thing is being put in
        with self._lock:
            self._kept = plain
            self._write(finished=False)

    def end(self, **more: Any) -> None:
        """Write all that there is as the whole result."""
        self.update(more)
        if self._watch is not None:
            self._watch.cancel()
        with self._lock:
            self._kept = json.loads(json.dumps(self))
            self._write(finished="error" not in self)

    def seconds_left(self) -> float:
        """Until the limit."""
        return float("inf") if self._limit is None else self._limit - (time.monotonic() - self._started)

    def _time_is_up(self) -> None:
        with self._lock:
            self._kept["error"] = f"stopped at its limit of {self._limit:.0f} s; what it had measured by then is here"
            self._write(finished=False)
            say(str(self._kept["error"]))
            sys.stdout.flush()
            os._exit(STOPPED)

    def _write(self, *, finished: bool) -> None:
        seconds = time.monotonic() - self._started
        measured = {**self._about, "finished": finished, "seconds": seconds, **self._kept}
        write_result(self._name, measured, self._results, quiet=not finished)
