"""A process of low priority is one, and so are its threads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gemma4vec.machine.processes.priority import lower_priority

SOURCE = Path(__file__).resolve().parents[2] / "src"
CHILD = """
import os, threading
from gemma4vec.machine.processes.priority import lower_priority
lower_priority()
found = []
thread = threading.Thread(target=lambda: found.append((os.sched_getscheduler(0), os.nice(0))))
thread.start()
thread.join()
print(*found[0], os.SCHED_IDLE)
"""


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="Linux has this class of priority")
@pytest.mark.parametrize("before", [0, 3])
def test_threads_started_later_inherit_it(before: int) -> None:
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    command = ["nice", "-n", str(before), sys.executable, "-c", CHILD]  # lowest is lowest, wherever one begins
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    scheduler, nice, idle = done.stdout.split()
    assert scheduler == idle and int(nice) == 19


def make_unable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests themselves stay as they are."""

    def refused(*_: object) -> None:
        raise PermissionError

    for name in ("setpriority", "sched_setscheduler"):
        monkeypatch.setattr(os, name, refused, raising=False)


def test_the_leader_of_a_session_makes_it_nice_where_the_kernel_shares_by_sessions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_unable(monkeypatch)
    monkeypatch.setattr(os, "getsid", lambda _: os.getpid())
    group = tmp_path / "autogroup"
    lower_priority(group)  # nothing is there, nothing is allowed: nothing happens
    assert not group.exists()
    group.write_text("/autogroup-7 nice 0\n")
    lower_priority(group)
    assert group.read_text() == "19"


def test_others_leave_the_session_of_their_terminal_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_unable(monkeypatch)
    monkeypatch.setattr(os, "getsid", lambda _: os.getppid())
    group = tmp_path / "autogroup"
    group.write_text("/autogroup-7 nice 0\n")
    lower_priority(group)
    assert group.read_text() == "/autogroup-7 nice 0\n"
