"""The ssh script with another ssh, whose hosts are bash on this machine: who is stopped when, and the exit code."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from gemma4vec.launch.ssh import ssh_text
from gemma4vec.launch.work import Processes, Work

TRAIN = Work(False, ("recipe.yaml",), "tiny")
ENCODE = Work(True, ("runs/a", "texts.jsonl", "out"), "encode-out")
# What a host does: it waits until its stdin ends.
UNTIL_STOPPED = "cat > /dev/null; echo $host >> stopped; exit 75"


def start(folder: Path, work: Work, hosts: dict[str, str]) -> subprocess.Popen[str]:
    """Start the script; `hosts` are what each one runs."""
    cases = "\n".join(f"{host}) {what} ;;" for host, what in hosts.items())
    ssh = folder / "ssh"
    ssh.write_text(
        f'#!/bin/bash\nhost="${{@: -2:1}}"\necho "$host ${{@: -1}}" >> called\ncase $host in\n{cases}\nesac\n'
    )
    ssh.chmod(0o755)
    script = ssh_text(work, Processes("python3"), list(hosts), "/w", "j1")
    return subprocess.Popen(
        ["bash", "-c", script],
        env={"PATH": f"{folder}:/usr/bin:/bin"},
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heed_signals,
    )


def heed_signals() -> None:
    """bash traps no signal that it was started to ignore, as below `nohup`."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    try:
        error = process.communicate(timeout=600)[1]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what a failure leaves
    return process.returncode, error


def stopped(folder: Path) -> list[str]:
    file = folder / "stopped"
    return sorted(file.read_text().split()) if file.exists() else []


def test_it_waits_for_all_hosts(tmp_path: Path) -> None:
    assert finish(start(tmp_path, TRAIN, {"a": "exit 0", "b": "sleep 0.3; touch done"})) == (0, "")
    called = (tmp_path / "called").read_text().splitlines()
    assert (tmp_path / "done").exists() and sorted(line[0] for line in called) == ["a", "b"]
    assert all(line[2:].startswith("cd /w && exec python3 -m") for line in called)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (1, "error: b ended with exit code 1; the other hosts save and end\n"),
        (255, "error: ssh could not reach b, or lost it, or its work was killed there; the other hosts save and end\n"),
    ],
)
def test_a_host_that_fails_ends_the_training_of_the_others(code: int, said: str, tmp_path: Path) -> None:
    hosts = {"a": UNTIL_STOPPED, "b": f"exit {code}", "c": UNTIL_STOPPED}
    assert finish(start(tmp_path, TRAIN, hosts)) == (code, said)
    assert stopped(tmp_path) == ["a", "c"]


def test_a_host_that_fails_leaves_the_parts_of_the_others_alone(tmp_path: Path) -> None:
    hosts = {"a": "read -rt 1; [ $? -gt 128 ] && touch open", "b": "exit 1"}
    assert finish(start(tmp_path, ENCODE, hosts)) == (1, "error: b ended with exit code 1; its part is missing\n")
    assert (tmp_path / "open").exists()  # `read` ended by its time limit, not because stdin ended


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_all_hosts_and_the_script_waits_for_them(number: signal.Signals, tmp_path: Path) -> None:
    process = start(tmp_path, TRAIN, {"a": UNTIL_STOPPED, "b": UNTIL_STOPPED})
    wait_for_calls(tmp_path, 2)
    if number is signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)
    assert finish(process) == (75, "") and stopped(tmp_path) == ["a", "b"]


def test_hosts_stop_when_the_script_is_killed(tmp_path: Path) -> None:
    process = start(tmp_path, TRAIN, {"a": UNTIL_STOPPED})
    wait_for_calls(tmp_path, 1)
    process.kill()
    process.wait(30)
    finish(process)  # its stderr ends with the last of the processes that it started
    assert stopped(tmp_path) == ["a"]


def wait_for_calls(folder: Path, number: int) -> None:
    last = time.monotonic() + 60
    while not (folder / "called").exists() or len((folder / "called").read_text().splitlines()) < number:
        assert time.monotonic() < last
        time.sleep(0.02)
