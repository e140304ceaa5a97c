"""Exit codes of our torchrun, and the signals that it passes on; torch's part is replaced."""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from torch.distributed import run
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.elastic.rendezvous import RendezvousConnectionError, RendezvousHandler

from gemma4vec.errors import Interrupted
from gemma4vec.launch import torchrun
from gemma4vec.launch.rendezvous import UnlessStopped
from gemma4vec.training.processes.stop_signals import STOPPING_VARIABLE, TOLD, TORCHRUN_VARIABLE

SOURCE = Path(__file__).resolve().parents[2] / "src"
MEETING = ["--rdzv-backend", "c10d", "--rdzv-id", "x", "--rdzv-endpoint", "127.0.0.1:29500"]


@pytest.fixture(autouse=True)
def handlers_return(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(STOPPING_VARIABLE, "")
    monkeypatch.setenv(TORCHRUN_VARIABLE, "")
    before = {one: signal.getsignal(one) for one in (*torchrun.PASSED_ON, TOLD)}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run below `nohup`, which ignores it
    yield
    for one, handler in before.items():
        signal.signal(one, handler)


def outcome(work: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> tuple[int, argparse.Namespace]:
    seen: list[argparse.Namespace] = []

    def fake(given: argparse.Namespace) -> None:
        seen.append(given)
        work()

    monkeypatch.setattr(run, "run", fake)
    return torchrun.main(["--standalone", "-m", "x"]), seen[0]


def failure(code: int) -> ChildFailedError:
    return ChildFailedError("x", {1: ProcessFailure(1, 10, code, "<N/A>")})


def raising(error: BaseException) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


@pytest.mark.parametrize(
    ("work", "code", "said"),
    [
        (lambda: None, 0, ""),
        (raising(failure(75)), 75, ""),
        (raising(failure(2)), 2, "error: process 1 of the training ended with exit code 2"),
        (raising(failure(-9)), 1, "error: process 1 of the training was killed by SIGKILL"),
        (raising(SignalException("x", signal.SIGINT)), 130, "interrupted: torchrun got SIGINT"),
        (raising(RendezvousConnectionError("no\nstore")), 1, "error: torchrun on the first machine has ended"),
        (raising(Interrupted("a restart after a signal")), 75, ""),
    ],
)
def test_exit_codes(
    work: Callable[[], None],
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ended, given = outcome(work, monkeypatch)
    assert ended == code and given.signals_to_handle == "SIGINT,SIGQUIT" and given.training_script == "x"
    assert (given.rdzv_backend, given.rdzv_endpoint, given.standalone) == ("gemma4vec", "localhost:0", False)
    error = capsys.readouterr().err
    assert error.startswith(said) and error.count("\n") == bool(said)


@pytest.mark.parametrize(
    ("got", "passed_on"),
    [(signal.SIGUSR1, signal.SIGUSR1), (signal.SIGTERM, signal.SIGTERM), (signal.SIGHUP, signal.SIGTERM)],
)
@pytest.mark.parametrize("error", [failure(-15), RendezvousConnectionError("gone")])
def test_a_signal_is_passed_on_and_ends_with_75(
    got: signal.Signals, passed_on: signal.Signals, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []

    class Child:
        def send_signal(self, number: int) -> None:
            sent.append(number)

    class Process:
        def children(self) -> list[Child]:
            return [Child(), Child()]

    monkeypatch.setattr("psutil.Process", Process)

    def work() -> None:
        os.kill(os.getpid(), got)
        raise error

    assert outcome(work, monkeypatch)[0] == 75
    assert sent == [passed_on, passed_on] and os.environ[STOPPING_VARIABLE] == "1"


def test_a_lost_terminal_ends_nothing_that_was_started_to_survive_it(monkeypatch: pytest.MonkeyPatch) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert outcome(lambda: os.kill(os.getpid(), signal.SIGHUP), monkeypatch)[0] == 0
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_a_signal_while_it_waits_for_other_machines_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.Process", lambda: type("Process", (), {"children": lambda self: []})())
    with pytest.raises(SystemExit) as ended:
        outcome(lambda: os.kill(os.getpid(), signal.SIGUSR1), monkeypatch)
    assert ended.value.code == 75


def test_one_of_several_machines_announces_its_own_address(capsys: pytest.CaptureFixture[str]) -> None:
    several = ["--nnodes", "2", *MEETING]
    assert torchrun._read([*several, "-m", "x"]).local_addr == "127.0.0.1"
    assert torchrun._read([*several, "--local-addr", "10.0.0.1", "-m", "x"]).local_addr == "10.0.0.1"
    assert torchrun._read(["--standalone", "-m", "x", "--rdzv-backend", "c10d"]).local_addr is None
    assert torchrun.main([*several[:-1], "no host:29500", "-m", "x"]) == 2
    assert "does not know the address no host" in capsys.readouterr().err


class Met(RendezvousHandler):
    """A handler that counts meetings."""

    def __init__(self) -> None:
        self.meetings = 0

    def get_backend(self) -> str:
        return "counted"

    def next_rendezvous(self) -> Any:
        self.meetings += 1

    def is_closed(self) -> bool:
        return False

    def set_closed(self) -> None: ...

    def num_nodes_waiting(self) -> int:
        return 7

    def get_run_id(self) -> str:
        return "x"

    def shutdown(self) -> bool:
        return True


def test_after_a_signal_nobody_meets_again(monkeypatch: pytest.MonkeyPatch) -> None:
    met = Met()
    handler = UnlessStopped(met)
    handler.next_rendezvous()
    monkeypatch.setenv(STOPPING_VARIABLE, "1")
    with pytest.raises(Interrupted):
        handler.next_rendezvous()
    assert met.meetings == 1 and (handler.get_backend(), handler.num_nodes_waiting()) == ("counted", 7)


WORKER = """
import pathlib, signal, sys, time
from gemma4vec.training.processes.stop_signals import tell_torchrun
pathlib.Path(sys.argv[1]).open("a").write("started\\n")
if sys.argv[2] == "75":
    for _ in range(10):  # processes of one machine all tell it, while it answers the scheduler's signal
        tell_torchrun()
        time.sleep(0.01)
sys.exit(int(sys.argv[2]))
"""


def run_torchrun(folder: Path, worker: str, *words: str) -> "subprocess.CompletedProcess[str]":
    (folder / "worker.py").write_text(worker)
    return subprocess.run(
        [sys.executable, "-m", "gemma4vec.launch.torchrun", "--standalone", "--max-restarts", "1", *words],
        env=os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )


@pytest.mark.parametrize(("code", "ended", "starts"), [(75, 75, 1), (3, 3, 2)])
def test_only_what_nobody_stopped_is_restarted(code: int, ended: int, starts: int, tmp_path: Path) -> None:
    done = run_torchrun(tmp_path, WORKER, str(tmp_path / "worker.py"), str(tmp_path / "log"), str(code))
    assert done.returncode == ended, done.stderr
    assert (tmp_path / "log").read_text() == "started\n" * starts and "Traceback" not in done.stderr


# The first attempt: process 1 dies once process 0 handles signals, which then waits until torchrun ends it.
ONE_DIES = """
import os, pathlib, signal, sys, time
from gemma4vec.training.processes.stop_signals import end_at_signals
folder = pathlib.Path(sys.argv[1])
end_at_signals()
(folder / ("ready-" + os.environ["RANK"])).touch()
if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
    while not (folder / "ready-0").exists():
        time.sleep(0.05)
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(900)
(folder / ("again-" + os.environ["RANK"])).touch()
"""


def test_processes_that_torchrun_ends_after_a_death_are_started_again(tmp_path: Path) -> None:
    done = run_torchrun(tmp_path, ONE_DIES, "--nproc-per-node", "2", str(tmp_path / "worker.py"), str(tmp_path))
    assert done.returncode == 0 and "stopped by SIGTERM" in done.stderr, done.stderr
    assert (tmp_path / "again-0").exists() and (tmp_path / "again-1").exists()
