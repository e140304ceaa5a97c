"""`examples/ray_encode.py` on a Ray cluster of its own on this machine: the parts of an array of jobs, by Ray Data."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from daemons import SOURCE
from encoded_folders import sums
from launched import SHARD_ROWS, VARIABLES, run_here, shards_done, write_texts

from gemma4vec.ledger.run_folder import RunFolder

pytestmark = pytest.mark.daemons
EXAMPLE = SOURCE.parent / "examples" / "ray_encode.py"
PARTS = 3
# Ray gives its daemons 30 seconds, which no option changes; a busy machine may need more.
TOO_SLOW, STARTS = "The current node timed out during startup", 5


def encode_by_ray(log: Path, *words: str) -> int:
    # Without RAY_ADDRESS Ray starts a cluster, and ends it with the program.
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= VARIABLES | {"RAY_worker_niceness": "0"}  # by default others on a busy machine come first
    for _ in range(STARTS):
        with log.open("wb") as stream:
            done = subprocess.run(
                [sys.executable, str(EXAMPLE), *words, "--parts", str(PARTS), "--cores", "1"],
                env=environment,
                stdout=stream,
                stderr=stream,
                check=False,
            )
        if done.returncode == 0 or TOO_SLOW not in log.read_text():
            break
    return done.returncode


def test_ray_data_encodes_the_shards_of_an_array(undisturbed: RunFolder, tmp_path: Path) -> None:
    pytest.importorskip("ray.data", reason="not installed here: ray[data]")
    texts, out, one = write_texts(tmp_path), tmp_path / "ray", tmp_path / "one"
    rows = ["--shard-rows", str(SHARD_ROWS)]
    command = [sys.executable, "-m", "gemma4vec", "encode", str(undisturbed.path), str(texts)]
    run_here(tmp_path / "one.log", *command, str(one), *rows)

    # A part that a job of an array has done is not done again.
    run_here(tmp_path / "part.log", *command, str(out), *rows, "--shard", f"2/{PARTS}")
    notes = {file: file.stat().st_mtime_ns for file in (out / "shards").glob("*.json")}
    assert len(notes) == shards_done(out, 1, PARTS) == shards_done(one, 1, PARTS)

    words = [str(undisturbed.path), str(texts), str(out), "--option=--shard-rows", f"--option={SHARD_ROWS}"]
    log = tmp_path / "ray.log"
    assert encode_by_ray(log, *words) == 0, log.read_text()
    assert all(f"part {number}/{PARTS}: " in log.read_text() for number in range(1, PARTS + 1))
    assert sums(out) == sums(one) and all(file.stat().st_mtime_ns == time for file, time in notes.items())


def test_a_part_that_fails_ends_the_job_with_its_reason(undisturbed: RunFolder, tmp_path: Path) -> None:
    pytest.importorskip("ray.data", reason="not installed here: ray[data]")
    log = tmp_path / "ray.log"
    assert encode_by_ray(log, str(undisturbed.path), str(tmp_path / "missing.jsonl"), str(tmp_path / "out")) != 0
    assert "missing.jsonl" in log.read_text()
