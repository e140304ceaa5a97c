"""Cores and memory inside containers (cgroup v1 and v2, as files made here), and what a record of the machine holds."""

import json
import os
from pathlib import Path

import psutil
import pytest

from gemma4vec.machine.describe import cpu_model, describe_machine, memory_bytes, usable_cores

ALL_CORES = len(os.sched_getaffinity(0))


def put(folder: Path, **contents: str) -> Path:
    for name, text in contents.items():
        path = folder / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize(("quota", "cores"), [("max 100000", ALL_CORES), ("100000 100000", 1), ("50000 100000", 1)])
def test_cores_in_a_v2_container(tmp_path: Path, quota: str, cores: int) -> None:
    assert usable_cores(put(tmp_path, cpu_DOT_max=quota + "\n")) == cores


@pytest.mark.parametrize(("quota", "cores"), [("-1", ALL_CORES), ("100000", 1)])
def test_cores_in_a_v1_container(tmp_path: Path, quota: str, cores: int) -> None:
    folder = put(tmp_path, cpu__cpu_DOT_cfs_quota_us=quota, cpu__cpu_DOT_cfs_period_us="100000")
    assert usable_cores(folder) == cores


def test_a_quota_above_the_affinity_adds_no_cores(tmp_path: Path) -> None:
    assert usable_cores(put(tmp_path, cpu_DOT_max="6400000 100000")) == ALL_CORES


@pytest.mark.parametrize(
    "names",
    [
        ("memory_DOT_max", "memory_DOT_current"),
        ("memory__memory_DOT_limit_in_bytes", "memory__memory_DOT_usage_in_bytes"),
    ],
)
def test_memory_in_a_container(tmp_path: Path, names: tuple[str, str]) -> None:
    limit, used = names
    assert memory_bytes(put(tmp_path, **{limit: "400000000", used: "100000000"})) == (400_000_000, 300_000_000)


@pytest.mark.parametrize(
    ("stat", "available"),
    [("anon 1\ninactive_file 60000000\nactive_file 5\n", 360_000_000), ("inactive_file 900000000\n", 400_000_000)],
)
def test_files_that_were_read_leave_room(tmp_path: Path, stat: str, available: int) -> None:
    folder = put(tmp_path, memory_DOT_max="400000000", memory_DOT_current="100000000", memory_DOT_stat=stat)
    assert memory_bytes(folder) == (400_000_000, available)
    old = put(
        tmp_path / "v1",
        memory__memory_DOT_limit_in_bytes="400000000",
        memory__memory_DOT_usage_in_bytes="100000000",
        memory__memory_DOT_stat=f"inactive_file 1\ntotal_{stat.removeprefix('anon 1' + chr(10))}",
    )
    assert memory_bytes(old) == (400_000_000, available)


@pytest.mark.parametrize("limit", ["max", str(2**63 - 4096)])
def test_memory_without_a_limit_is_the_machines(tmp_path: Path, limit: str) -> None:
    assert memory_bytes(put(tmp_path, memory_DOT_max=limit))[0] == psutil.virtual_memory().total
    assert memory_bytes(tmp_path / "none")[0] == psutil.virtual_memory().total


def test_cpu_model(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Example 9000\n")
    assert cpu_model(tmp_path / "cpuinfo") == "Example 9000"
    assert cpu_model(tmp_path / "none") == os.uname().machine


def test_the_record_is_plain_json_and_names_no_host_or_user() -> None:
    record = describe_machine()
    text = json.dumps(record)
    assert record["cores"] == usable_cores()
    assert os.uname().nodename not in text
    assert str(Path.home()) not in text
