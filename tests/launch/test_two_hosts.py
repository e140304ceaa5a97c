"""Two hosts (network namespaces, joined by a virtual cable) train as one does; a host that falls silent is noticed."""

import filecmp
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tiny_model import write_tiny
from tiny_run import RECIPE, write_rows_file

from gemma4vec.ledger.run_folder import RunFolder, list_runs

pytestmark = pytest.mark.slow
SOURCE = Path(__file__).resolve().parents[2] / "src"
STEPS = 12
SECONDS = 900  # a busy machine takes minutes to import what takes seconds elsewhere
ADDRESSES = ("10.213.77.1", "10.213.77.2")


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | more


def torchrun(*words: str) -> list[str]:
    return [sys.executable, "-m", "gemma4vec.launch.torchrun", *words]


def train(recipe: Path, out: Path, *words: str) -> list[str]:
    return ["-m", "gemma4vec", "train", str(recipe), "--out", str(out), *words]


@dataclass
class Started:
    """Processes that a test has started; those that still run are killed at its end."""

    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, words: list[str], log: Path, **more: str) -> subprocess.Popen[str]:
        with log.open("w") as stream:
            process = subprocess.Popen(
                words, env=environment(**more), stdout=stream, stderr=stream, text=True, start_new_session=True
            )
        self.processes.append(process)
        return process


@pytest.fixture
def started() -> Iterator[Started]:
    found = Started()
    yield found
    for process in found.processes:
        if process.poll() is None:
            for child in children(process.pid):
                os.kill(child, signal.SIGKILL)
            process.kill()
            process.wait()


def children(process: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(process)], capture_output=True, text=True, check=False).stdout
    return [int(line) for line in found.split()]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    base = write_tiny(folder / "base", "gemma3", layers=2)
    text = RECIPE.format(base=base, rows=write_rows_file(folder / "rows.jsonl"))
    (folder / "recipe.yaml").write_text(text.replace("steps: 6", f"steps: {STEPS}"))
    return folder / "recipe.yaml"


@pytest.fixture(scope="module")
def undisturbed(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that two processes of one host train."""
    out = tmp_path_factory.mktemp("one")
    words = [*torchrun("--standalone", "--nproc-per-node", "2"), *train(recipe, out)]
    subprocess.run(words, env=environment(), check=True)
    (run,) = list_runs(out)
    return run.model / "model.safetensors"


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """The names of two network namespaces that reach each other, and nothing else."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and the program ip")
    names = [f"g4v{os.getpid()}{letter}" for letter in "ab"]

    def ip(*words: str) -> int:
        return subprocess.run(["ip", *words], check=False, capture_output=True).returncode

    try:
        if any(ip("netns", "add", name) for name in names):
            pytest.skip("this machine permits no network namespaces")
        cable = ["link", "add", "veth0", "netns", names[0], "type", "veth", "peer", "name", "veth0", "netns", names[1]]
        if ip(*cable):
            pytest.skip("this machine permits no virtual network devices")
        for name, address in zip(names, ADDRESSES, strict=True):
            assert ip("-n", name, "addr", "add", f"{address}/24", "dev", "veth0") == 0
            assert ip("-n", name, "link", "set", "veth0", "up") == 0 and ip("-n", name, "link", "set", "lo", "up") == 0
        yield names
    finally:
        for name in names:
            ip("netns", "del", name)


def on_host(hosts: list[str], number: int, *words: str, options: Sequence[str] = ()) -> list[str]:
    meeting = ["--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-id", "x", "--rdzv-endpoint", f"{ADDRESSES[0]}:29511"]
    own = ["--rdzv-conf", f"is_host={1 - number}", "--nproc-per-node", "1", *options]
    return ["ip", "netns", "exec", hosts[number], *torchrun(*meeting, *own), *words]


def wait_for_steps(out: Path, number: int) -> RunFolder:
    last = time.monotonic() + SECONDS
    while time.monotonic() < last:
        runs = list_runs(out)
        if runs and len(runs[0].events("step")) >= number:
            return runs[0]
        time.sleep(0.1)
    raise AssertionError(f"no {number} steps in {out}")


def test_two_hosts_train_as_one(
    hosts: list[str], recipe: Path, undisturbed: Path, tmp_path: Path, started: Started
) -> None:
    both = [
        started.start(
            on_host(hosts, number, *train(recipe, tmp_path / "out", "--job", "two")),
            tmp_path / f"{number}.log",
            GLOO_SOCKET_IFNAME="veth0",
        )
        for number in (0, 1)
    ]
    assert [process.wait(SECONDS) for process in both] == [0, 0], (tmp_path / "0.log").read_text()
    (run,) = list_runs(tmp_path / "out")
    assert filecmp.cmp(run.model / "model.safetensors", undisturbed, shallow=False)


def test_a_folder_that_hosts_do_not_share_is_refused(
    hosts: list[str], recipe: Path, tmp_path: Path, started: Started
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    other = on_host(hosts, 1, *train(recipe, out))
    hidden = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(out), *other]
    logs = [tmp_path / "0.log", tmp_path / "1.log"]
    first = started.start(on_host(hosts, 0, *train(recipe, out)), logs[0], GLOO_SOCKET_IFNAME="veth0")
    second = started.start(hidden, logs[1], GLOO_SOCKET_IFNAME="veth0")
    # The second torchrun may end because the first one is gone.
    assert first.wait(SECONDS) == 2 and second.wait(SECONDS) in (1, 2)
    assert "process 1 on" in logs[0].read_text() and "does not see what process 0" in logs[0].read_text()
    assert all("Traceback" not in log.read_text() for log in logs)
    assert list_runs(out) == [] and list(out.iterdir()) == []


def test_a_host_whose_cable_is_cut_ends_both(hosts: list[str], recipe: Path, tmp_path: Path, started: Started) -> None:
    words = train(recipe, tmp_path / "out", "stages.0.budget.steps=100000")
    logs = [tmp_path / "0.log", tmp_path / "1.log"]
    for number, log in enumerate(logs):
        more = {"GLOO_SOCKET_IFNAME": "veth0", "GEMMA4VEC_PATIENCE_SECONDS": "20"}
        started.start(on_host(hosts, number, *words), log, **more)
    run = wait_for_steps(tmp_path / "out", 3)
    subprocess.run(["ip", "-n", hosts[1], "link", "set", "veth0", "down"], check=True)
    cut = time.monotonic()
    while time.monotonic() < cut + SECONDS and not all("no sign of life" in log.read_text() for log in logs):
        time.sleep(0.2)
    assert all("gave no sign of life for 20 seconds" in log.read_text() for log in logs)
    assert time.monotonic() - cut < 120
    assert run.manifest["status"] == "failed" and "no sign of life" in run.events("failed")[-1]["error"]


def test_a_process_that_is_killed_on_one_host_is_restarted_with_those_of_the_other(
    hosts: list[str], recipe: Path, undisturbed: Path, tmp_path: Path, started: Started
) -> None:
    words = train(recipe, tmp_path / "out", "--job", "two")
    logs = [tmp_path / "0.log", tmp_path / "1.log"]
    both = [
        started.start(on_host(hosts, number, *words, options=("--max-restarts", "1")), log, GLOO_SOCKET_IFNAME="veth0")
        for number, log in enumerate(logs)
    ]
    wait_for_steps(tmp_path / "out", 3)
    os.kill(children(both[1].pid)[0], signal.SIGKILL)
    assert [process.wait(SECONDS) for process in both] == [0, 0], "".join(log.read_text() for log in logs)
    (run,) = list_runs(tmp_path / "out")
    assert run.events("resumed") and filecmp.cmp(run.model / "model.safetensors", undisturbed, shallow=False)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_is_restarted_to_the_same_weights(
    rank: int, recipe: Path, undisturbed: Path, tmp_path: Path, started: Started
) -> None:
    words = [
        *torchrun("--standalone", "--nproc-per-node", "2", "--max-restarts", "1"),
        *train(recipe, tmp_path / "out"),
    ]
    process = started.start(words, tmp_path / "log")
    wait_for_steps(tmp_path / "out", 3)
    os.kill(sorted(children(process.pid))[rank], signal.SIGKILL)
    assert process.wait(SECONDS) == 0, (tmp_path / "log").read_text()
    (run,) = list_runs(tmp_path / "out")
    assert run.events("resumed") and run.manifest["status"] == "finished"
    assert filecmp.cmp(run.model / "model.safetensors", undisturbed, shallow=False)


def test_a_signal_to_one_process_stops_all_and_the_job_goes_on(
    recipe: Path, undisturbed: Path, tmp_path: Path, started: Started
) -> None:
    words = [*torchrun("--standalone", "--nproc-per-node", "2", "--max-restarts", "1")]
    words += train(recipe, tmp_path / "out", "stages.0.evaluation.checkpoint_seconds=1000", "--job", "j1")
    process = started.start(words, tmp_path / "log")
    run = wait_for_steps(tmp_path / "out", 3)
    os.kill(sorted(children(process.pid))[1], signal.SIGUSR1)
    assert process.wait(SECONDS) == 75, (tmp_path / "log").read_text()
    assert run.manifest["status"] == "interrupted" and run.manifest["stopped_by"]
    assert started.start(words, tmp_path / "log2").wait(SECONDS) == 0
    assert list_runs(tmp_path / "out") == [run]
    assert filecmp.cmp(run.model / "model.safetensors", undisturbed, shallow=False)
