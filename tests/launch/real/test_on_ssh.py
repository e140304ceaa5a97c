"""`gemma4vec launch ssh` with real servers of OpenSSH on this machine: the same bytes whatever ended it in between."""

import filecmp
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from daemons import free_ports, processes_with, until
from encoded_folders import sums
from launched import (
    SHARD_ROWS,
    nothing_is_left,
    run_here,
    run_with_steps,
    shards_done,
    write_launch,
    write_texts,
)
from private_sshd import ADDRESSES, Hosts, private_sshd

from gemma4vec.ledger.run_folder import RunFolder, list_runs

pytestmark = pytest.mark.daemons


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with private_sshd(tmp_path_factory.mktemp("ssh") / "hosts") as found:
        yield found


class Launch:
    """A script that is started again and again, each time with a log of its own."""

    def __init__(self, hosts: Hosts, script: Path) -> None:
        self.hosts, self.script, self.number = hosts, script, 0

    def start(self) -> "subprocess.Popen[bytes]":
        self.number += 1
        self.hosts.started.folder, before = self.script.parent, self.hosts.started.folder
        self.hosts.started.environment = {"PATH": self.hosts.path}
        try:
            return self.hosts.started.start(f"log-{self.number}", ["bash", str(self.script)])
        finally:
            self.hosts.started.folder = before

    @property
    def log(self) -> str:
        return (self.script.parent / f"log-{self.number}.out").read_text()

    def workers(self, host: str, word: str) -> list[psutil.Process]:
        """Processes on a host whose command line has `word`."""
        below = {one.pid for one in psutil.Process(self.hosts.servers[host].pid).children(recursive=True)}
        return [one for one in processes_with(word) if one.pid in below]


def kill_all(processes: list[psutil.Process]) -> None:
    assert processes
    for one in processes:
        one.kill()


def disturb(launch: Launch, out: Path, how: str, process: "subprocess.Popen[bytes]") -> None:
    if how == "Ctrl-C":
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    elif how.startswith("a killed process"):
        both = [one for host in ADDRESSES for one in launch.workers(host, str(out)) if one.cmdline()[1:2] == ["-u"]]
        kill_all([one for one in both if one.environ()["RANK"] == how[-1]])
    elif how == "a killed client":
        kill_all(launch.hosts.clients("g4va"))  # whose first process says how far it is
    else:
        kill_all(launch.hosts.sessions("g4vb"))


DISTURBANCES = [
    ("Ctrl-C", 75, "interrupted", ""),
    ("a killed process 0", 1, "started", "was killed by SIGKILL"),  # it alone writes how a run ends
    ("a killed process 1", 1, "failed", "was killed by SIGKILL"),
    ("a killed client", 137, "interrupted", "error: g4va ended with exit code 137; the other hosts save and end"),
    (
        "a killed session",
        255,
        "interrupted",
        "error: ssh could not reach g4vb, or lost it, or its work was killed there; the other hosts save and end",
    ),
]


def test_a_training_goes_on_after_whatever_ended_it(
    hosts: Hosts, recipe: Path, undisturbed: RunFolder, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = [str(recipe), "--hosts", ",".join(ADDRESSES), "--out", str(out), "--name", "disturbed"]
    words += ["--meeting-point", ADDRESSES["g4va"], "--port", str(free_ports(1)[0]), "--max-restarts", "0"]
    launch = Launch(hosts, write_launch("ssh", tmp_path / "script", *words))
    step = 0
    for how, code, status, said in DISTURBANCES:
        process = launch.start()
        run = run_with_steps(out, step + 2)
        disturb(launch, out, how, process)
        began = time.monotonic()
        assert process.wait(600) == code, (how, launch.log)
        assert time.monotonic() - began < 120, how  # what a death may cost the others
        assert said in launch.log and "Traceback" not in launch.log, (how, launch.log)
        nothing_is_left(out)
        assert run.manifest["status"] == status, (how, run.manifest)
        step = run.events("step")[-1]["step"]
    assert launch.start().wait(900) == 0, launch.log
    assert list_runs(out) == [run] and len(run.events("resumed")) == len(DISTURBANCES)
    model = "model.safetensors"
    assert filecmp.cmp(run.model / model, undisturbed.model / model, shallow=False)


def test_an_encoding_goes_on_after_a_kill(hosts: Hosts, undisturbed: RunFolder, tmp_path: Path) -> None:
    texts, out = write_texts(tmp_path), tmp_path / "two"
    options = ["--shard-rows", str(SHARD_ROWS)]
    python = [sys.executable, "-m", "gemma4vec"]
    run_here(
        tmp_path / "one.log", *python, "encode", str(undisturbed.path), str(texts), str(tmp_path / "one"), *options
    )
    words = ["--hosts", ",".join(ADDRESSES), "encode", str(undisturbed.path), str(texts), str(out), "--", *options]
    launch = Launch(hosts, write_launch("ssh", tmp_path / "script", *words))

    process = launch.start()
    until(lambda: shards_done(out) >= 3, "three shards")
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(600) == 75, launch.log
    nothing_is_left(out)
    some = shards_done(out)
    assert some < shards_done(tmp_path / "one") and "Traceback" not in launch.log

    process = launch.start()
    until(lambda: shards_done(out) >= some + 3, "three more shards")
    kill_all(launch.workers("g4vb", str(out)))
    assert process.wait(600) == 255, launch.log
    assert (
        "error: ssh could not reach g4vb, or lost it, or its work was killed there; its part is missing" in launch.log
    )
    assert shards_done(out, 0, 2) == shards_done(tmp_path / "one", 0, 2) > shards_done(out, 1, 2)
    nothing_is_left(out)

    assert launch.start().wait(600) == 0, launch.log
    assert sums(out) == sums(tmp_path / "one")
