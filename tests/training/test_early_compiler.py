"""The C++ compiler is readied by a process of its own, where layers will be compiled and nothing is there yet."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from gemma4vec.model.upstream import default_compile_cache
from gemma4vec.recipe.load import parse_recipe
from gemma4vec.training import early_compiler
from gemma4vec.training.early_compiler import is_ready, prepare_compiler

RECIPE = """
name: tiny
model: {base: base}
stages: [{name: one, data: [{name: rows, path: rows.jsonl}], budget: {steps: 100}}]
"""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, str]]:
    """The environments of the processes that are started, on a machine of two cores with a compiler and no GPU."""
    found: list[dict[str, str]] = []

    class Process:
        def __init__(self, command: list[str], *, env: dict[str, str], **_: Any):
            assert command[0] == sys.executable
            found.append(env)

        def kill(self) -> None:
            """At the end of this process."""

    monkeypatch.setattr(early_compiler.subprocess, "Popen", Process)
    monkeypatch.setattr(early_compiler, "missing_for_compile", lambda: None)
    monkeypatch.setattr(early_compiler, "_GPU_DEVICES", ())
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    for name in ("TORCHINDUCTOR_CACHE_DIR", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    return found


def prepare(*overrides: str) -> None:
    prepare_compiler(parse_recipe(RECIPE, "recipe.yaml", list(overrides)))


def test_the_kernels_folder_is_the_one_that_layers_use(
    started: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "mine"))
    prepare()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", default_compile_cache())  # torch writes it, for nobody
    prepare()
    folders = [env["TORCHINDUCTOR_CACHE_DIR"] for env in started]
    own = str(tmp_path / "cache" / "inductor")
    assert folders == [own, str(tmp_path / "mine"), own]


@pytest.mark.parametrize(
    ("overrides", "count"),
    [
        (["stages.0.layout.compile=false"], 0),
        (["stages.0.budget.steps=29"], 0),
        (["stages.0.budget.steps=29", "stages.0.layout.compile=true"], 1),
        (["stages.0.budget={minutes: 0.5}"], 0),
        (["stages.0.budget={minutes: 5}"], 1),
        (["stages.0.budget={tokens: 1000}"], 1),
    ],
)
def test_only_where_layers_will_be_compiled(started: list[dict[str, str]], overrides: list[str], count: int) -> None:
    prepare(*overrides)
    assert len(started) == count


@pytest.mark.parametrize("reason", ["one core", "no compiler", "a GPU", "another process does it", "all is there"])
def test_not_where_it_would_not_help(
    started: list[dict[str, str]], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason == "one core":
        monkeypatch.setattr(os, "cpu_count", lambda: 1)
    elif reason == "no compiler":
        monkeypatch.setattr(early_compiler, "missing_for_compile", lambda: "there is no C++ compiler (g++)")
    elif reason == "a GPU":
        monkeypatch.setattr(early_compiler, "_GPU_DEVICES", (str(tmp_path),))
    elif reason == "another process does it":
        monkeypatch.setenv("LOCAL_RANK", "1")
    else:
        for file in ("cache/inductor/ab/kernel.so", "tmp/torchinductor_me/precompiled_headers/header.h.gch"):
            (tmp_path / file).parent.mkdir(parents=True)
            (tmp_path / file).touch()
    prepare()
    assert not started


def test_a_process_that_cannot_be_started_is_done_without(
    started: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise BlockingIOError("too many processes")

    monkeypatch.setattr(early_compiler.subprocess, "Popen", refuse)
    prepare()


@pytest.mark.slow  # half a minute of one core
def test_then_the_header_is_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "kernels"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert not is_ready(tmp_path / "kernels")
    done = subprocess.run([sys.executable, "-c", early_compiler._KERNEL], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert is_ready(tmp_path / "kernels")
