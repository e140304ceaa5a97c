"""Processes that a test starts in a temporary folder, and ends whatever happens."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

SOURCE = Path(__file__).resolve().parents[3] / "src"
SECONDS = 900.0  # a busy machine takes minutes to import what takes seconds elsewhere


def find_or_skip(*programs: str) -> list[str]:
    """The paths of programs; the test is skipped with a reason where one is missing."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    found = {name: shutil.which(name, path=path) for name in programs}
    if missing := [name for name, where in found.items() if where is None]:
        pytest.skip(f"not installed here: {', '.join(missing)}")
    return [str(where) for where in found.values()]


def free_ports(number: int) -> list[int]:
    """Ports of 127.0.0.1 at which nobody listens now."""
    with contextlib.ExitStack() as open_ones:
        probes = [open_ones.enter_context(socket.socket()) for _ in range(number)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def until(true: Callable[[], object], what: str, seconds: float = SECONDS) -> None:
    """Wait until `true()` is; `what` names it in the failure."""
    last = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < last, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.1)


def processes_with(word: str) -> list[psutil.Process]:
    """Processes of this machine whose command line holds `word`, such as a test's folder."""
    found = []
    for one in psutil.process_iter(["cmdline"]):
        if one.pid != os.getpid() and any(word in part for part in one.info["cmdline"] or []):
            found.append(one)
    return found


@dataclass
class Daemons:
    """Processes in sessions of their own, each with its output in a file of `folder`."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, name: str, words: list[str]) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.out").open("ab") as stream:
            process = subprocess.Popen(
                words,
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
                preexec_fn=_heed_signals,
            )
        self.running.append(process)
        return process

    def end(self) -> None:
        """End all of them and what they started, the last one first."""
        for process in reversed(self.running):
            with contextlib.suppress(psutil.NoSuchProcess):
                below = psutil.Process(process.pid).children(recursive=True)
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(20)
                for one in below:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        one.kill()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def daemons(folder: Path) -> Iterator[Daemons]:
    """Daemons of the block, with their files in `folder`."""
    found = Daemons(folder)
    try:
        yield found
    finally:
        found.end()


def _heed_signals() -> None:
    """bash traps no signal that it was started to ignore, as below `nohup`."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
