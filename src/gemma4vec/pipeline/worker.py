"""A fork server: it imports the libraries once and forks a child process for each job of a matrix or a plan.

Importing takes seconds; a fork has the libraries at once, and its failure (a crash, no memory, a kill) does not affect
other jobs. The server computes nothing and uses no GPU, so forking it is safe. It reads jobs from standard input, one
JSON object a line, and answers with one line when the child starts and one when it ends. When the input closes because
its client was killed, child and server exit at once, so that no training continues unnoticed.

Ctrl-C, SIGTERM and SIGUSR1 stop a job by its client, which passes them on: a training then ends as one of `train` does
(`training.processes.stop_signals`). The server itself answers none of them, so that a scheduler may send them to every
process of a job, and a child none before it is ready for them.

`multiprocessing`'s forkserver with `set_forkserver_preload` cannot replace it. Its children outlive a killed parent,
they share the terminal's session, so that Ctrl-C reaches them twice, and errors of preloaded imports are ignored.
"""

import contextlib
import gc
import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from gemma4vec.errors import Gemma4VecError, Interrupted
from gemma4vec.machine.terminal import show_on
from gemma4vec.training.processes.stop_signals import SIGNALS, StopSignals, end_at_signals

if TYPE_CHECKING:
    from rich.console import Console

logger = logging.getLogger(__name__)

STOPPED_CODE, INTERRUPTED_CODE, LOST_CODE = 3, 130, 98
_PATIENCE_SECONDS = 120.0  # for a child that Ctrl-C has interrupted to save its last step
_PASSED_ON = (signal.SIGINT, *SIGNALS)


class Job(Protocol):
    """A dataclass; its fields are JSON values."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


class Worker:
    """The client: `start` a job, then `wait` for its exit code.

    Args:
        log: a file for what the server says.
        signals: those that are caught here; `wait` passes them on to the job. None: none are caught.
    """

    def __init__(self, log: Path, signals: StopSignals | None = None):
        self.log = log
        self._signals = signals or StopSignals()
        self._server: subprocess.Popen[bytes] | None = None
        self._child: int | None = None

    def start(self, work: "Callable[[Any], None]", job: Job, log: Path) -> None:
        """Start a job; its process appends its output to the file `log`.

        Args:
            work: a function of a module, called as `work(job)`.
            job: its argument; the fields are JSON values.
            log: the file.
        """
        server = self._ensure_server()
        assert server.stdin is not None
        self._child = None
        try:
            names = [f"{one.__module__}:{one.__qualname__}" for one in (work, type(job))]
            order = {"work": names[0], "kind": names[1], "job": asdict(job), "log": str(log)}
            server.stdin.write(json.dumps(order).encode() + b"\n")
        except BrokenPipeError:
            return  # `poll` reports that the server is gone

    def poll(self, seconds: float) -> int | None:
        """The job's exit code, None if it still runs after `seconds`. A negative code is a signal number."""
        answer = self._read_answer(seconds)
        if answer and "pid" in answer:
            self._child = int(answer["pid"])
            return None
        return None if answer is None else int(answer["code"])

    def wait(self, look: Callable[[], None] = lambda: None) -> int:
        """Wait for the job and return its exit code; call `look` about once a second.

        After a signal that stops, a training finishes its step and saves it, however long that takes; Ctrl-C ends it in
        the middle of a step.

        Raises:
            Interrupted: a signal that stops came, here or to the job, and the job has ended.
            KeyboardInterrupt: Ctrl-C, here or in the job, and the job has ended.
        """
        passed_on = False
        try:
            with self._signals.noted_only():
                while (code := self.poll(1.0)) is None:
                    look()
                    if self._signals.name is not None and not passed_on:
                        if self._child is None:  # it has not begun, and ends with the server
                            break
                        self._send(signal.Signals[self._signals.name])
                        passed_on = True
        except KeyboardInterrupt:
            if self._child is not None:
                self._send(signal.SIGINT)
                self.poll(_PATIENCE_SECONDS)
            raise
        if code is None or code == Interrupted.exit_code or self._signals.name is not None:
            raise self._signals.interruption()
        if code == INTERRUPTED_CODE:
            raise KeyboardInterrupt
        return code

    def _send(self, number: signal.Signals) -> None:
        assert self._child is not None
        with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
            os.kill(self._child, number)

    def close(self) -> None:
        """Stop the server and any running job."""
        if self._server is not None:
            assert self._server.stdin is not None and self._server.stdout is not None
            self._server.stdin.close()
            self._server.wait()
            self._server.stdout.close()
            self._server = None

    def _ensure_server(self) -> subprocess.Popen[bytes]:
        if self._server is None:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            source = str(Path(__file__).resolve().parents[2])
            paths = [source, *filter(None, [os.environ.get("PYTHONPATH")])]
            with self.log.open("ab") as stderr:
                self._server = subprocess.Popen(
                    [sys.executable, "-m", "gemma4vec.pipeline.worker"],
                    bufsize=0,  # so that `select` sees all unread output
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                    start_new_session=True,  # a terminal's Ctrl-C reaches the client alone, which passes it on once
                )
        return self._server

    def _read_answer(self, seconds: float) -> dict[str, int] | None:
        """The server's next answer, None if there is none within `seconds`."""
        assert self._server is not None and self._server.stdout is not None
        ready, _, _ = select.select([self._server.stdout], [], [], seconds)
        if not ready:
            return None
        line = self._server.stdout.readline()
        if not line:
            self.close()
            return {"code": LOST_CODE}
        answer: dict[str, int] = json.loads(line)
        return answer


def explain_code(code: int, log: Path) -> str:
    """The reason of a failure, in one line."""
    if code < 0:
        name = signal.Signals(-code).name
        return f"process killed by {name}" + (" (out of memory?)" if -code == signal.SIGKILL else "")
    if code == LOST_CODE:
        return f"process could not start; see {log.parent / 'worker.log'}"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return errors[-1] if errors else f"exit code {code}; see {log}"


def serve() -> None:
    """Run the server; see the module's docstring."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # output of libraries must not mix with answers
    signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)  # a child gets them when it has its handlers
    import peft  # noqa: F401  # import once what every job needs
    import sentence_transformers  # noqa: F401

    os.register_at_fork(after_in_child=renew_thread_pool)
    with os.fdopen(0, "rb", buffering=0, closefd=False) as jobs:
        while line := jobs.readline():
            order = json.loads(line)
            work, kind = (_find(order[key]) for key in ("work", "kind"))
            gc.freeze()  # a child's collections of garbage neither look through the libraries nor copy them
            child = _fork(partial(work, kind(**order["job"])), Path(order["log"]))
            replies.write(json.dumps({"pid": child}) + "\n")
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            try:
                replies.write(json.dumps({"code": code}) + "\n")
            except BrokenPipeError:
                os._exit(1)  # the client is gone


def renew_thread_pool() -> None:
    """Make torch's pool of threads again in a child.

    After a fork torch does so at the first call that needs it, but two threads that come at once get no pool and fail
    ("Invalid thread pool!"); transformers loads weights by several threads.
    """
    import torch

    torch.set_num_threads(torch.get_num_threads())


def _find(name: str) -> Any:
    """The function or class "module:name"; its module is imported here, once for all children."""
    module, name = name.split(":")
    return getattr(import_module(module), name)


def _plain_console() -> "Console":
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def _fork(work: Callable[[], None], log: Path) -> int:
    """Run `work` in a child that appends its output to `log`; return the child's process id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        end_at_signals()  # a training has its own handlers while it runs; all else simply starts again
        threading.Thread(target=_exit_with_client, daemon=True).start()
        with show_on(_plain_console):
            code = _run(work)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run(work: Callable[[], None]) -> int:
    """Run `work`; return its exit code and log the reason of a failure in one line."""
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
        work()
        return 0
    except KeyboardInterrupt as error:
        logger.error(f"interrupted: {error}")
        return error.exit_code if isinstance(error, Interrupted) else INTERRUPTED_CODE
    except Gemma4VecError as error:
        if error.exit_code != STOPPED_CODE:
            logger.error(f"error: {_one_line(error)}")
        return error.exit_code
    except MemoryError:
        logger.error("error: out of memory; use fewer layout.tokens_per_forward or gradient checkpointing")
        return 1
    except BaseException as error:
        traceback.print_exc()
        logger.error(f"error: {type(error).__name__}: {_one_line(error)}"[:300])
        return 1


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _exit_with_client() -> None:
    """Exit when the client has closed our standard input, for whatever reason."""
    poll: Any = select.poll()
    poll.register(0, 0)  # poll reports hang-ups always; nothing is read
    while not any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll()):
        time.sleep(0.1)
    os._exit(1)


if __name__ == "__main__":
    serve()
