"""`gemma4vec launch slurm` on a real cluster of two nodes on this machine: limits, preemption, cancellation, arrays."""

import contextlib
import filecmp
import math
import os
import re
import signal
import subprocess
import sys
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
from private_slurm import Cluster, private_slurm

from gemma4vec.ledger.run_folder import RunFolder, list_runs

pytestmark = pytest.mark.daemons


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with private_slurm(tmp_path_factory.mktemp("slurm") / "cluster") as found:
        yield found


def submit(cluster: Cluster, folder: Path, script: Path) -> str:
    """Submit a script, whose log goes into `folder`; return the job's number."""
    return cluster.ask("sbatch", "--parsable", f"--output={folder}/job.log", str(script)).strip()


def training(folder: Path, recipe: Path, *words: str) -> Path:
    more = ["--nodes", "2", "--out", str(folder / "out"), "--port", str(free_ports(1)[0]), "--workdir", str(folder)]
    return write_launch("slurm", folder / "script", str(recipe), *words, *more)


def was_queued_again(cluster: Cluster, job: str, times: int) -> None:
    until(lambda: cluster.job(job, "Restarts") == str(times), f"restart {times} of job {job}")


def run_seconds(cluster: Cluster, job: str) -> int:
    """How long the job has run."""
    hours, minutes, seconds = cluster.job(job, "RunTime").split(":")
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds)


def workers(out: Path) -> list[psutil.Process]:
    """The processes that train, which torchrun starts with `python -u`."""
    return [one for one in processes_with(str(out)) if one.cmdline()[1:2] == ["-u"]]


def in_mask(process: psutil.Process, mask: str, number: signal.Signals) -> bool:
    """Whether a mask of /proc/PID/status has a signal: `ShdPnd` (it waits), `SigCgt` (a handler is there)."""
    try:
        (found,) = re.findall(rf"{mask}:\s*([0-9a-f]+)", Path(f"/proc/{process.pid}/status").read_text())
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return False
    return bool(int(found, 16) >> (number - 1) & 1)


def is_stopped(process: psutil.Process) -> bool:
    """Whether a process stands still; Slurm lets it go on (SIGCONT) when it signals a job."""
    try:
        return process.status() == psutil.STATUS_STOPPED
    except psutil.NoSuchProcess:
        return False


def all_catch(processes: list[psutil.Process]) -> bool:
    return all(in_mask(one, "SigCgt", signal.SIGUSR1) for one in processes)


def check_stopped(run: RunFolder, by: str, out: Path) -> None:
    nothing_is_left(out)
    assert run.manifest["status"] == "interrupted" and by in run.manifest["stopped_by"], run.manifest


def test_a_training_goes_on_after_a_signal_a_time_limit_and_preemption(
    cluster: Cluster, recipe: Path, undisturbed: RunFolder, tmp_path: Path
) -> None:
    out, log = tmp_path / "out", tmp_path / "job.log"
    job = submit(cluster, tmp_path, training(tmp_path, recipe, "--time", "120"))

    # Before the training has begun: its processes are there, and import.
    until(lambda: len(workers(out)) == 2 and all_catch(workers(out)), "two processes that catch signals")
    cluster.ask("scancel", "--signal=USR1", job)
    was_queued_again(cluster, job, 1)
    nothing_is_left(out)
    assert not list_runs(out) and log.read_text().count("Exited with exit code 75") == 2, log.read_text()

    cluster.start_again(job)
    run = run_with_steps(out, 2)
    # The limit comes nearer: the warning, 120 s before it, is due in less than a minute. The steps wait for it.
    both = workers(out)
    assert len(both) == 2
    for one in both:
        one.suspend()
    until(lambda: all(is_stopped(one) for one in both), "processes that stand still")
    cluster.ask("scontrol", "update", f"JobId={job}", f"TimeLimit={2 + math.ceil(run_seconds(cluster, job) / 60)}")
    until(lambda: all(not is_stopped(one) or in_mask(one, "ShdPnd", signal.SIGUSR1) for one in both), "a warning")
    for one in both:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.resume()
    was_queued_again(cluster, job, 2)
    check_stopped(run, "SIGUSR1", out)

    cluster.ask("scontrol", "update", f"JobId={job}", "TimeLimit=120")
    cluster.start_again(job)
    run_with_steps(out, run.events("step")[-1]["step"] + 2)
    cluster.ask("sbatch", "-p", "high", "-N", "2", "-o", "/dev/null", text="#!/bin/bash\nsleep 1\n")
    was_queued_again(cluster, job, 3)
    check_stopped(run, "SIGTERM", out)

    cluster.start_again(job)
    until(lambda: cluster.job(job, "JobState") not in ("PENDING", "RUNNING", "COMPLETING"), "the end of the job")
    assert (cluster.job(job, "JobState"), cluster.job(job, "ExitCode")) == ("COMPLETED", "0:0"), log.read_text()
    assert list_runs(out) == [run] and "Traceback" not in log.read_text()
    model = "model.safetensors"
    assert filecmp.cmp(run.model / model, undisturbed.model / model, shallow=False)


def test_scancel_ends_a_training_with_a_checkpoint(cluster: Cluster, recipe: Path, tmp_path: Path) -> None:
    out, log = tmp_path / "out", tmp_path / "job.log"
    job = submit(cluster, tmp_path, training(tmp_path, recipe, "stages.0.budget.steps=100000"))
    run = run_with_steps(out, 2)
    cluster.ask("scancel", job)
    until(lambda: cluster.job(job, "JobState") == "CANCELLED", "the end of the job")
    check_stopped(run, "SIGTERM", out)
    assert cluster.job(job, "Restarts") == "0" and "Traceback" not in log.read_text()


def test_a_job_that_cannot_train_is_not_queued_again(cluster: Cluster, recipe: Path, tmp_path: Path) -> None:
    script = training(tmp_path, recipe, "--max-restarts", "0")
    script.write_text(script.read_text().replace(str(recipe), str(recipe.with_name("missing.yaml"))))
    job = submit(cluster, tmp_path, script)
    until(lambda: cluster.job(job, "JobState") == "FAILED", "the end of the job")
    assert (cluster.job(job, "ExitCode"), cluster.job(job, "Restarts")) == ("2:0", "0")
    assert "missing.yaml" in (tmp_path / "job.log").read_text()


def test_an_encoding_is_an_array_whose_parts_go_on(cluster: Cluster, undisturbed: RunFolder, tmp_path: Path) -> None:
    texts, out = write_texts(tmp_path), tmp_path / "array"
    options = ["--shard-rows", str(SHARD_ROWS)]
    one = [sys.executable, "-m", "gemma4vec", "encode", str(undisturbed.path), str(texts), str(tmp_path / "one")]
    run_here(tmp_path / "one.log", *one, *options)
    words = ["--nodes", "2", "--workdir", str(tmp_path), "encode", str(undisturbed.path), str(texts), str(out)]
    script = write_launch("slurm", tmp_path / "script", *words, "--", *options)
    array = cluster.ask("sbatch", "--parsable", f"--output={tmp_path}/job-%a.log", str(script)).strip()
    second = f"{array}_2"

    until(lambda: shards_done(out, 1, 2) >= 3, "three shards of the second part")
    cluster.ask("scancel", "--signal=USR1", second)
    was_queued_again(cluster, second, 1)
    assert cluster.job(f"{array}_1", "Restarts") == "0"
    assert shards_done(out, 1, 2) < shards_done(tmp_path / "one", 1, 2)
    cluster.start_again(second)
    states = ["squeue", "-h", "-j", array, "-t", "PD,R,CG", "-o", "%T"]

    def all_ended() -> bool:
        done = subprocess.run(states, env=os.environ | cluster.environment, capture_output=True, text=True)
        return done.stdout.strip() == ""

    until(all_ended, "the end of the array")
    for part in (1, 2):
        job = f"{array}_{part}"
        assert (cluster.job(job, "JobState"), cluster.job(job, "ExitCode")) == ("COMPLETED", "0:0")
    assert sums(out) == sums(tmp_path / "one")
