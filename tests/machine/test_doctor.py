"""The doctor's findings, on this machine and on made-up ones."""

import re
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from packaging.requirements import Requirement

from gemma4vec.machine import compiler, doctor
from gemma4vec.machine.device import DeviceChoice
from gemma4vec.machine.doctor import run_checks
from gemma4vec.machine.versions import TESTED, installed_version

ROOT = Path(__file__).resolve().parents[2]


def test_this_machine() -> None:
    checks = {check.name: check for check in run_checks()}
    assert len(checks) == 12
    tested = all((installed_version(name) or "").split("+")[0] == version for name, version in TESTED.items())
    assert checks["versions"].state == ("ok" if tested else "warn"), checks["versions"].finding
    assert checks["model hub"].state == "ok"  # offline by choice, in tests
    for check in checks.values():
        assert "\n" not in check.finding + check.advice
        assert check.advice or check.state == "ok", check


def test_the_tested_versions_are_those_of_the_constraints() -> None:
    pins = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE))
    assert {name: pins[name] for name in TESTED} == TESTED


def test_another_version_is_a_warning_and_none_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "installed_version", lambda name: "0.1" if name == "peft" else TESTED[name])
    check = doctor.check_versions()
    assert check.state == "warn" and "peft 0.1 (tested: " in check.finding
    monkeypatch.setattr(doctor, "installed_version", lambda name: None)
    assert doctor.check_versions().state == "missing"


@pytest.mark.parametrize(("available", "state"), [(16e9, "ok"), (5e9, "warn"), (1e9, "missing")])
def test_memory(monkeypatch: pytest.MonkeyPatch, available: float, state: str) -> None:
    monkeypatch.setattr(doctor, "memory_bytes", lambda: (int(16e9), int(available)))
    assert doctor.check_memory().state == state


@pytest.mark.parametrize(("free", "state"), [(10e9, "ok"), (1e9, "warn")])
def test_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: float, state: str) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    assert doctor.check_disk("disk", tmp_path / "not" / "yet", "GEMMA4VEC_HOME").state == state


@pytest.mark.parametrize(
    ("cores", "state", "advice"), [(2, "ok", ""), (1, "warn", "more threads"), (4, "warn", "idle")]
)
def test_threads(monkeypatch: pytest.MonkeyPatch, cores: int, state: str, advice: str) -> None:
    monkeypatch.setattr(doctor, "usable_cores", lambda: cores)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    check = doctor.check_threads()
    assert check.state == state and advice in check.advice


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler.shutil, "which", lambda _: None)
    assert doctor.check_compiler().state == "warn"
    # torch asks for one program alone, and another one does not help until it is named.
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(compiler.shutil, "which", lambda name: "/usr/bin/clang++" if name == "clang++" else None)
    monkeypatch.setattr(compiler, "_DEFAULT", "g++")
    found = doctor.check_compiler()
    assert "CXX=clang++ uses it" in found.finding and found.advice.endswith("set CXX=clang++")


def test_no_headers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(compiler.shutil, "which", lambda _: "/usr/bin/g++")
    monkeypatch.setattr(compiler.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    check = doctor.check_compiler()
    assert check.state == "warn" and "python3-dev" in check.advice


@pytest.mark.parametrize(
    ("preload", "state"), [("", "ok"), ("/x/libtcmalloc.so.4", "ok"), ("/x/libjemalloc.so.2", "warn")]
)
def test_allocator(monkeypatch: pytest.MonkeyPatch, preload: str, state: str) -> None:
    monkeypatch.setenv("LD_PRELOAD", preload)
    assert doctor.check_allocator().state == state


def test_tcmalloc_is_offered_where_it_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    monkeypatch.setattr(doctor.platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(doctor, "_TCMALLOC", (f"{str(tmp_path)[1:]}/*-linux-gnu/libtcmalloc.so*",))
    plain = doctor.check_allocator()
    assert "keep freed memory" in plain.finding and not plain.advice
    library = tmp_path / "x86_64-linux-gnu" / "libtcmalloc.so.4"
    library.parent.mkdir()
    library.touch()
    assert doctor.check_allocator().advice.endswith(f"LD_PRELOAD={library}")


def test_on_a_gpu_its_allocator_and_its_compiler_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gemma4vec.machine.device.choose_device", lambda: DeviceChoice("cuda"))
    for name in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "CC"):
        monkeypatch.delenv(name, raising=False)
    assert "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True" in doctor.check_allocator().advice
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "backend:cudaMallocAsync")
    found = doctor.check_allocator()
    assert "PYTORCH_ALLOC_CONF=backend:cudaMallocAsync" in found.finding and not found.advice
    monkeypatch.setattr(compiler.shutil, "which", lambda name: "/usr/bin/g++" if name == "g++" else None)
    assert "no C compiler" in doctor.check_compiler().finding and "install gcc" in doctor.check_compiler().advice
    monkeypatch.setattr(compiler.shutil, "which", lambda name: "/usr/bin/clang" if name == "clang" else None)
    monkeypatch.setattr(compiler, "python_header", lambda: Path(__file__))
    assert doctor.check_compiler().state == "ok" and "/usr/bin/clang" in doctor.check_compiler().finding


def test_bf16_that_is_not_faster_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gemma4vec.machine.dtype.cpu_flags", lambda: {"avx512_bf16"})
    monkeypatch.setattr("gemma4vec.machine.rates.matmul_rate", lambda _: 100.0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "use dtype fp32" in doctor.check_dtype().advice


def test_every_extra_for_users_is_listed() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    own = {"bundled", "quickstart", "docs", "dev", "uitest"}  # data, and what contributors need
    wanted = {name: {Requirement(text).name for text in texts} for name, texts in extras.items() if name not in own}
    assert {name: set(distributions) for name, (distributions, _) in doctor._EXTRAS.items()} == wanted


def test_an_extra_is_there_if_all_of_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_EXTRAS", {"a": (("x", "y"), "this"), "b": (("x",), "that"), "c": (("z",), "those")})
    monkeypatch.setattr(doctor, "installed_version", lambda name: "1" if name == "x" else None)
    check = doctor.check_extras()
    assert check.finding == "installed: b; not installed: a (this; lacks y), c (those)"
    assert check.advice == 'to add one: pip install "gemma4vec[NAME]"'
    monkeypatch.setattr(doctor, "installed_version", lambda name: "1")
    assert doctor.check_extras().finding == "installed: a, b, c; not installed: none"
    assert not doctor.check_extras().advice
