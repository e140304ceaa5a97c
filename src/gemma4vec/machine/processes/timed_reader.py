"""A reader of foreign files in a process of its own, which is ended where one file takes too long.

Some readers loop for minutes on a damaged file. The limit counts processor time, so that a busy machine leaves
nothing out; a reader that only waits is ended after some times as long on the clock.
"""

import contextlib
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from gemma4vec.machine.processes.child_environment import child_environment
from gemma4vec.reading.json_values import loads_json

STARTING = 600.0  # seconds on the clock in which a new process is ready, however busy the machine is
NOT_STARTED = "not started"
_CHUNK = 1 << 16


class TookTooLongError(Exception):
    """The reader was ended at its limit."""


class ReaderError(Exception):
    """What the reader raised, or that its process died or does not start.

    `kind` is the name of its exception's class, "died" or `NOT_STARTED`.
    """

    def __init__(self, kind: str, message: str):
        super().__init__(f"{kind}: {message}")
        self.kind = kind


class TimedReader:
    """Calls `function(raw, path)` in a process that starts with the first file and is replaced after a long one.

    Args:
        function: `module:name` of a function from a file's bytes and path to a JSON value.
        seconds: of the processor that a file may take.
        patience: times as many seconds on the clock.
    """

    def __init__(self, function: str, seconds: float, patience: float):
        self.function, self.seconds, self.patience = function, seconds, patience
        self._process: subprocess.Popen[bytes] | None = None
        self._started = True

    def __enter__(self) -> "TimedReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process, if there is one."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):  # what was not written to a process that is gone
                    stream.close()

    def read(self, raw: bytes, path: str) -> Any:
        """The function's value for a file.

        Raises:
            TookTooLongError: it took longer than the limit.
            ReaderError: the function raised, or its process died.
        """
        try:
            process = self._ready()
            assert process.stdin is not None
            process.stdin.write(json.dumps([path, len(raw)]).encode() + b"\n" + raw)
            process.stdin.flush()
            answer = _line(process, self.seconds * self.patience)
        except BaseException as error:  # also KeyboardInterrupt: nobody reads what the process has begun
            code = self._process.poll() if self._process is not None else None
            self.close()
            if isinstance(error, _EndedError | BrokenPipeError):
                if code == -signal.SIGPROF:
                    raise TookTooLongError(path) from None
                raise ReaderError("died", f"exit code {code}") from None
            raise
        if "raised" in answer:
            raise ReaderError(*answer["raised"])
        return answer["value"]

    def _ready(self) -> "subprocess.Popen[bytes]":
        """The process; a new one has imported the function before a file's time begins."""
        if self._process is None:
            if not self._started:
                raise ReaderError(NOT_STARTED, "it did not start before")
            try:
                self._process = self._start()
                _line(self._process, STARTING)
            except (OSError, _EndedError, TookTooLongError) as error:
                self._started = False
                raise ReaderError(NOT_STARTED, f"{type(error).__name__} {error}") from error
        return self._process

    def _start(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-c", f"from {__name__} import serve; serve()"]
        return subprocess.Popen(
            [*command, self.function, repr(self.seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=child_environment(),
        )


class _EndedError(Exception):
    """The process has ended without an answer."""


def _line(process: "subprocess.Popen[bytes]", seconds: float) -> dict[str, Any]:
    """The next answer of a process.

    Raises:
        TookTooLongError: none came in time.
        _EndedError: the process ended.
    """
    assert process.stdout is not None
    until = time.monotonic() + seconds
    found = bytearray()
    while not found.endswith(b"\n"):
        if not select.select([process.stdout], [], [], max(0.0, until - time.monotonic()))[0]:
            raise TookTooLongError
        chunk = os.read(process.stdout.fileno(), _CHUNK)
        if not chunk:
            process.wait()
            raise _EndedError
        found += chunk
    answer: dict[str, Any] = loads_json(bytes(found), surrogates=True)
    return answer


def serve() -> None:
    """Answer requests on standard input until it closes; the arguments are the function and its limit in seconds.

    A timer of the kernel ends the process, also where its parent is gone.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends this process
    module, _, name = sys.argv[1].partition(":")
    seconds = float(sys.argv[2])
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a reader's output must not mix with answers
    function: Callable[[bytes, str], Any] = getattr(importlib.import_module(module), name)
    _answer(answers, {})
    while header := sys.stdin.buffer.readline():
        path, size = loads_json(header, surrogates=True)
        raw = sys.stdin.buffer.read(size)
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            answer = {"value": function(raw, path)}
        except Exception as error:  # a reader raises whatever a damaged file leads to
            answer = {"raised": [type(error).__name__, str(error)]}
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        _answer(answers, answer)


def _answer(stream: Any, answer: dict[str, Any]) -> None:
    stream.write(json.dumps(answer).encode() + b"\n")
    stream.flush()
