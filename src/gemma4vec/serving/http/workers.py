"""Several server processes on one socket: started, watched, started again, ended.

The socket is bound once and inherited, so that connections that wait in it survive the worker that is killed. A worker
reads its settings from standard input, as one line of JSON, and ends when that closes: no worker survives its
supervisor. It reports on standard output, one line of JSON each.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from gemma4vec.errors import Gemma4VecError, InputError, WorkError
from gemma4vec.machine.describe import usable_cores
from gemma4vec.serving.http.http_protocol import url_of
from gemma4vec.serving.http.server import OpenModel, ServerProcess, leave_if_computing, open_model
from gemma4vec.serving.http.server_settings import DRAIN_SECONDS, ServerSettings

logger = logging.getLogger(__name__)

COMMAND = (sys.executable, "-m", "gemma4vec.serving.http.workers")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0  # seconds before a worker that died early is started again
_GRACE_SECONDS = 10.0  # after the drain


class Supervisor:
    """Starts `settings.workers` processes and keeps that number running.

    Args:
        settings: what was asked for.
        sock: the listening socket.
        command: the program of a worker.

    Attributes:
        pids: process ids by number of the worker.
        ready: numbers of the workers that accept requests.
        all_ready: set once all have been ready at the same time.
        restarted: number of workers that died and were replaced.
    """

    def __init__(self, settings: ServerSettings, sock: socket.socket, command: Sequence[str] = COMMAND):
        self.settings, self.sock, self.command = settings, sock, command
        self.pids: dict[int, int] = {}
        self.restarted = 0
        self.all_ready = asyncio.Event()
        self.ready: set[int] = set()
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """End the workers; accepted requests are finished."""
        self._stopping.set()
        for pid in self.pids.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    async def run(self) -> None:
        """Run until `stop`, SIGTERM or SIGINT.

        Raises:
            InputError, WorkError: a worker cannot start, for the reason that it gives.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(ValueError, RuntimeError):  # not in the main thread
                loop.add_signal_handler(number, self.stop)
        with tempfile.TemporaryDirectory(prefix="gemma4vec-serve-") as folder:
            watching = [
                loop.create_task(self._keep_running(number, Path(folder))) for number in range(self.settings.workers)
            ]
            try:
                await asyncio.gather(*watching)
            finally:
                self.stop()
                await asyncio.wait(watching)

    async def _keep_running(self, number: int, folder: Path) -> None:
        pause = _FIRST_PAUSE
        was_ready = False
        while not self._stopping.is_set():
            process = await self._start(number, folder)
            self.pids[number] = process.pid
            ready = await self._read_report(process, number)
            if ready:
                was_ready, pause = True, _FIRST_PAUSE
                self.ready.add(number)
                if len(self.ready) == self.settings.workers:
                    self.all_ready.set()
            code = await self._wait(process)
            self.pids.pop(number, None)
            self.ready.discard(number)
            if self._stopping.is_set():
                break
            if not was_ready:
                raise WorkError(f"worker {number} ended with {_ending(code)} while it loaded the model")
            logger.warning(f"worker {number} (pid {process.pid}) ended with {_ending(code)}; starting another")
            self.restarted += 1
            if not ready:  # it died before it was of use
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    async def _start(self, number: int, folder: Path) -> asyncio.subprocess.Process:
        environment = dict(os.environ)
        threads = max(1, usable_cores() // self.settings.workers)
        environment.setdefault("OMP_NUM_THREADS", str(threads))
        process = await asyncio.create_subprocess_exec(
            *self.command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment,
            pass_fds=[self.sock.fileno()],
        )
        assert process.stdin is not None
        job = {"number": number, "fd": self.sock.fileno(), "folder": str(folder), "settings": self.settings.as_json()}
        with contextlib.suppress(ConnectionError):  # it died already, which its report shows
            process.stdin.write(json.dumps(job).encode() + b"\n")
            await process.stdin.drain()
        return process

    async def _read_report(self, process: asyncio.subprocess.Process, number: int) -> bool:
        """Whether the worker is ready.

        Raises:
            InputError, WorkError: what it reports before any worker was ready.
        """
        assert process.stdout is not None
        line = await process.stdout.readline()
        if not line:
            return False
        report = json.loads(line)
        if "error" in report:
            if self.restarted or self.all_ready.is_set():
                logger.warning(f"worker {number}: {report['error']}")
                return False
            await process.wait()
            raise (InputError if report["exit_code"] == InputError.exit_code else WorkError)(report["error"])
        return True

    async def _wait(self, process: asyncio.subprocess.Process) -> int:
        """The exit code; a worker that does not end after SIGTERM is killed."""
        ended = asyncio.ensure_future(process.wait())
        stopping = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait((ended, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not ended.done():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)  # again: one that has just started had no handler yet
            await asyncio.wait((ended,), timeout=DRAIN_SECONDS + _GRACE_SECONDS)
            if not ended.done():
                logger.error(f"pid {process.pid} does not end; killing it")
                process.kill()
        return await ended


def run_workers(settings: ServerSettings, sock: socket.socket) -> None:
    """Serve by several processes until SIGTERM or Ctrl-C."""

    async def run() -> None:
        supervisor = Supervisor(settings, sock)
        announced = asyncio.get_running_loop().create_task(_announce(supervisor))
        try:
            await supervisor.run()
        finally:
            announced.cancel()

    asyncio.run(run())


async def _announce(supervisor: Supervisor) -> None:
    await supervisor.all_ready.wait()
    logger.info(f"{supervisor.settings.workers} workers serve at {url_of(supervisor.sock)}; stop them with Ctrl-C")


def run_worker(opening: OpenModel = open_model) -> int:
    """A worker's whole life; returns its exit code."""
    job = json.loads(sys.stdin.readline())
    settings = ServerSettings.from_json(job["settings"])
    sock = socket.socket(fileno=job["fd"])
    sock.setblocking(False)

    def report(**value: object) -> None:
        print(json.dumps(value), flush=True)

    async def run() -> None:
        process = ServerProcess(
            settings,
            sock,
            opening=opening,
            worker=(job["number"], Path(job["folder"])),
            on_ready=lambda: report(ready=True),
        )
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), _end_with_supervisor, process)
        await process.run()

    try:
        asyncio.run(run())
    except Gemma4VecError as error:
        report(error=" ".join(str(error).split()), exit_code=error.exit_code)
        return error.exit_code
    return 0


def _end_with_supervisor(process: ServerProcess) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        process.stop()


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("gemma4vec").setLevel(logging.INFO)
    exit_code = run_worker()
    leave_if_computing(exit_code)
    sys.exit(exit_code)
