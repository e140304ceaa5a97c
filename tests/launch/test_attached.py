"""A module ends when its stdin does, by the signal that it handles; the address that torchrun announces."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gemma4vec.errors import InputError
from gemma4vec.launch import meeting_point
from gemma4vec.launch.meeting_point import own_address

SOURCE = Path(__file__).resolve().parents[2] / "src"
HANDLES = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
WAITS = "print('ready', *sys.argv[1:], sys.stdin.read(), flush=True)\ntime.sleep(60)\n"


def start(folder: Path, module: str, *words: str) -> "subprocess.Popen[str]":
    (folder / "work.py").write_text(module)
    return subprocess.Popen(
        [sys.executable, "-m", "gemma4vec.launch.attached", *words],
        env=os.environ | {"PYTHONPATH": f"{SOURCE}:{folder}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("module", "code"),
    [(HANDLES + WAITS, 75), ("import sys, time\n" + WAITS, 130)],
)
def test_it_stops_when_stdin_ends(module: str, code: int, tmp_path: Path) -> None:
    process = start(tmp_path, module, "work", "one", "--two")
    assert process.stdout is not None and process.stdout.readline() == "ready one --two \n"  # its own stdin is empty
    assert process.communicate(timeout=600) == ("", "") and process.returncode == code


def test_it_ends_as_its_module_does(tmp_path: Path) -> None:
    process = start(tmp_path, "import sys\nsys.exit(3)\n", "work")
    assert process.wait(600) == 3 and process.communicate()[1] == ""
    process = start(tmp_path, "")
    assert process.wait(600) == 2 and process.communicate()[1].startswith("error: no module")


def test_a_machine_announces_the_address_from_which_it_reaches_the_first_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert own_address("127.0.0.1:29500") == "127.0.0.1"
    # The first machine itself may know its name by another address than the others do.
    answer = [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("127.0.0.1", 29500))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: answer)
    assert own_address("first:29500") == "first"
    # On another machine it is an address of its own, not the first one's.
    answer[0] = (socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("127.0.0.2", 29500))
    assert own_address("first:29500") == "127.0.0.1"


def test_an_unknown_meeting_point_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[str] = []

    def unknown(host: str, *_: object) -> None:
        tries.append(host)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(meeting_point.time, "sleep", lambda _: None)
    with pytest.raises(InputError, match="does not know the address alpha, where the machines meet"):
        own_address("alpha:29500")
    assert tries == ["alpha"] * 3
