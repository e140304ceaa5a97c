"""Several processes on one folder: leases, workers that are killed, and the same bytes in the end."""

import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from encoded_folders import corpus, sums, write_corpus
from stub_encoder import StubOpener

from gemma4vec.errors import WorkError
from gemma4vec.files import machine_name
from gemma4vec.serving.encode import processes
from gemma4vec.serving.encode.check_output import check_output
from gemma4vec.serving.encode.encode_file import EncodeSettings, encode_file
from gemma4vec.serving.encode.leases import Leases

SETTINGS = EncodeSettings(shard_rows=4, lease_seconds=30)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "in" / "c.jsonl", corpus(48))


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that start in no time; the stub has no threads that a fork would lose."""
    monkeypatch.setattr(processes, "START_METHOD", "fork")


def test_a_lease_has_one_owner(tmp_path: Path) -> None:
    ours, theirs = Leases(tmp_path, 30), Leases(tmp_path, 30)
    with ours.claim("a") as owned, ours.claim("b") as both:
        assert owned and both
    with ours.claim("a") as owned:
        assert owned
        # Another process of this machine: its number is not that of the owner, who runs.
        (tmp_path / "a.lease").write_text(f'{{"machine": "{machine_name()}", "process": {os.getppid()}, "token": "x"}}')
        with theirs.claim("a") as also:
            assert not also
    assert (tmp_path / "a.lease").is_file()  # it is not ours any more, so it stays


@pytest.mark.parametrize("owner", ['{"machine": "another", "process": 1, "token": "x"}', "", "{", "[1]"])
def test_a_lease_that_nobody_touches_is_taken_over(tmp_path: Path, owner: str) -> None:
    lease = tmp_path / "a.lease"
    lease.write_text(owner)
    with Leases(tmp_path, 30).claim("a") as owned:
        assert not owned
    os.utime(lease, (time.time() - 31,) * 2)
    with Leases(tmp_path, 30).claim("a") as owned:
        assert owned and lease.read_text() != owner
    assert os.listdir(tmp_path) == []


def test_a_dead_process_of_this_machine_has_no_lease(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        with Leases(tmp_path, 30).claim("a"):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert (tmp_path / "a.lease").is_file()
    with Leases(tmp_path, 30).claim("a") as owned:
        assert owned


def test_a_process_with_the_number_of_a_dead_one_is_another(tmp_path: Path) -> None:
    (tmp_path / "a.lease").write_text(f'{{"machine": "{machine_name()}", "process": {os.getpid()}, "token": "x"}}')
    with Leases(tmp_path, 30).claim("a") as owned:
        assert owned


def test_an_owner_touches_its_lease(tmp_path: Path) -> None:
    with Leases(tmp_path, 0.3).claim("a") as owned:
        assert owned
        first = (tmp_path / "a.lease").stat().st_mtime_ns
        deadline = time.monotonic() + 10
        while (tmp_path / "a.lease").stat().st_mtime_ns == first and time.monotonic() < deadline:
            time.sleep(0.02)
        assert (tmp_path / "a.lease").stat().st_mtime_ns > first


def test_a_shard_of_a_lost_host_is_encoded_by_another(source: Path, tmp_path: Path) -> None:
    encode_file(StubOpener(), source, tmp_path / "whole", SETTINGS)
    encode_file(StubOpener(), source, tmp_path / "out", SETTINGS, part=(1, 12))
    lost = tmp_path / "out" / "leases" / "000005.lease"
    lost.write_text('{"machine": "lost", "process": 1, "token": "x"}')
    os.utime(lost, (time.time() - 31,) * 2)
    encode_file(StubOpener(), source, tmp_path / "out", SETTINGS)
    assert sums(tmp_path / "out") == sums(tmp_path / "whole")


def test_a_command_waits_for_a_shard_of_another_host(source: Path, tmp_path: Path, log_lines: list[str]) -> None:
    quick = replace(SETTINGS, lease_seconds=0.5)
    encode_file(StubOpener(), source, tmp_path / "out", quick, part=(1, 12))
    busy = tmp_path / "out" / "leases" / "000005.lease"
    busy.write_text('{"machine": "busy", "process": 1, "token": "x"}')
    made = encode_file(StubOpener(), source, tmp_path / "out", quick)
    assert made.done == 12 and made.notes[-1].shard == 5
    assert "waiting for 1 shards that other processes encode" in log_lines


def test_two_workers_write_what_one_writes(source: Path, tmp_path: Path) -> None:
    """The real way: workers are new processes."""
    encode_file(StubOpener(), source, tmp_path / "whole", SETTINGS)
    log = tmp_path / "log"
    opener = StubOpener(seconds=0.1, log=str(log))
    made = encode_file(opener, source, tmp_path / "out", SETTINGS, workers=2)
    assert sums(tmp_path / "out") == sums(tmp_path / "whole") and len(made.notes) == 12
    assert len(log.read_text().split()) == 12 and str(os.getpid()) not in log.read_text().split()


def test_the_others_do_the_work_of_a_worker_that_is_killed(
    source: Path, tmp_path: Path, forked: None, log_lines: list[str]
) -> None:
    encode_file(StubOpener(), source, tmp_path / "whole", SETTINGS)

    class DiesOnce(StubOpener):
        def __call__(self, threads=None, worker=0):
            return StubOpener(seconds=0.02, dies="text" if worker == 1 else "")()

    made = encode_file(DiesOnce(), source, tmp_path / "out", SETTINGS, workers=2)
    assert sums(tmp_path / "out") == sums(tmp_path / "whole") and made.done == 12
    assert "a worker ended without an answer (exit code -9)" in log_lines


def test_all_workers_killed_is_one_line(source: Path, tmp_path: Path, forked: None) -> None:
    with pytest.raises(WorkError, match="all 2 workers were killed"):
        encode_file(StubOpener(dies="text"), source, tmp_path / "out", SETTINGS, workers=2)
    assert encode_file(StubOpener(), source, tmp_path / "out", SETTINGS).done == 12


def test_a_worker_that_fails_ends_all_with_its_line(source: Path, tmp_path: Path, forked: None) -> None:
    with pytest.raises(WorkError, match=r"c.jsonl line 18 \(id 'd17'\): stub returned a vector of length nan"):
        encode_file(StubOpener(broken="text 17 ", seconds=0.02), source, tmp_path / "out", SETTINGS, workers=2)


def killed_encoding(source: Path, out: Path, opener: StubOpener, seconds: float) -> bool:
    """Start an encoding with 2 workers, and kill all three processes after a time. Return whether it ended first."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        try:
            encode_file(opener, source, out, SETTINGS, workers=2)
        finally:
            os._exit(0)
    time.sleep(seconds)
    ended = os.waitpid(pid, os.WNOHANG)[0] == pid
    if not ended:
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return ended


def check_kills(source: Path, folder: Path, kills: int, seed: int) -> None:
    encode_file(StubOpener(), source, folder / "whole", SETTINGS)
    opener, generator = StubOpener(seconds=0.03, log=str(folder / "log")), random.Random(seed)
    ended = sum(killed_encoding(source, folder / "out", opener, generator.uniform(0.05, 0.25)) for _ in range(kills))
    assert ended < kills  # some were killed
    encode_file(opener, source, folder / "out", SETTINGS)
    assert sums(folder / "out") == sums(folder / "whole") and check_output(folder / "out").good
    assert not [file for file in (folder / "out").rglob(".*") if file.suffix == ".part"]
    encoded = len((folder / "log").read_text().split())
    assert 12 <= encoded <= 12 + 2 * kills  # at most one shard a worker and kill is done again


def test_kill_9_at_random_moments_changes_no_byte(source: Path, tmp_path: Path, forked: None) -> None:
    check_kills(source, tmp_path, kills=5, seed=19)


@pytest.mark.slow
def test_kill_9_at_20_random_moments_changes_no_byte(tmp_path: Path, forked: None) -> None:
    for seed in range(4):
        folder = tmp_path / str(seed)
        check_kills(write_corpus(folder / "in" / "c.jsonl", corpus(48)), folder, kills=5, seed=seed)
