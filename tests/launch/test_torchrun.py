"""Exit codes of our torchrun, and the signals that it passes on; torch's part is replaced."""

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from torch.distributed import run
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.elastic.rendezvous.api import RendezvousConnectionError

from gemma4vec.launch import torchrun
from gemma4vec.training.job import STOPPING_VARIABLE


@pytest.fixture(autouse=True)
def handlers_return(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(STOPPING_VARIABLE, "")
    before = {one: signal.getsignal(one) for one in torchrun.PASSED_ON}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run below `nohup`, which ignores it
    yield
    for one, handler in before.items():
        signal.signal(one, handler)


def outcome(work: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> tuple[int, list[str]]:
    seen: list[str] = []

    def fake(words: list[str]) -> None:
        seen.extend(words)
        work()

    monkeypatch.setattr(run, "main", fake)
    return torchrun.main(["--standalone", "-m", "x"]), seen


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
    ],
)
def test_exit_codes(
    work: Callable[[], None],
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert outcome(work, monkeypatch) == (code, ["--signals-to-handle", "SIGINT,SIGQUIT", "--standalone", "-m", "x"])
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
    several = ["--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:29500"]
    assert torchrun._local_address([*several, "-m", "x"]) == ["--local-addr", "127.0.0.1"]
    assert torchrun._local_address([*several, "--local-addr", "10.0.0.1", "-m", "x"]) == []
    assert torchrun._local_address(["--standalone", "-m", "x", "--rdzv-backend", "c10d"]) == []
    assert torchrun.main([*several[:-1], "no host:29500", "-m", "x"]) == 2
    assert "does not know the address no host" in capsys.readouterr().err


@pytest.mark.parametrize(("code", "stopping", "left"), [(75, "", 0), (-10, "1", 0), (-9, "", 3), (1, "", 3)])
def test_only_what_nobody_stopped_is_restarted(
    code: int, stopping: str, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.distributed.elastic.agent.server.api import RunResult, WorkerState
    from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent

    monkeypatch.setenv(STOPPING_VARIABLE, stopping)
    result = RunResult(state=WorkerState.FAILED, failures=failure(code).failures)
    monkeypatch.setattr(LocalElasticAgent, "_monitor_workers", lambda self, group: result)
    torchrun._restart_nothing_that_was_stopped()
    agent = type("Agent", (), {"_remaining_restarts": 3})()
    assert LocalElasticAgent._monitor_workers(agent, None) is result and agent._remaining_restarts == left
