"""Whether layers are compiled, with the reason in words."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from gemma4vec.errors import InputError
from gemma4vec.model import compilation
from gemma4vec.model.compilation import choose_compile, use_compile_cache


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pretend that there is a compiler, or none."""

    def pretend(there: bool) -> None:
        monkeypatch.delenv("CXX", raising=False)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(compilation.shutil, "which", lambda name: f"/usr/bin/{name}" if there else None)

    return pretend


@pytest.mark.parametrize(
    ("wanted", "steps", "minutes", "on", "reason"),
    [
        ("auto", 100, None, True, "compiled once"),
        ("auto", None, 5.0, True, "compiled once"),
        ("auto", None, None, True, "compiled once"),
        ("auto", 29, None, False, "too short"),
        ("auto", None, 0.5, False, "too short"),
        (True, 1, None, True, "the recipe says layout.compile=true"),
        (False, 100, None, False, "the recipe says layout.compile=false"),
    ],
)
def test_with_a_compiler(
    compiler: Any, wanted: Any, steps: int | None, minutes: float | None, on: bool, reason: str
) -> None:
    compiler(True)
    choice = choose_compile(wanted, steps=steps, minutes=minutes)
    assert choice.on is on and reason in choice.reason


def test_without_a_compiler(compiler: Any) -> None:
    compiler(False)
    choice = choose_compile("auto", steps=100, minutes=None)
    assert not choice.on and "no C++ compiler" in choice.reason and "uncompiled" in choice.reason
    with pytest.raises(InputError, match=r"layout\.compile=true, but there is no C\+\+ compiler; install one, or use"):
        choose_compile(True, steps=100, minutes=None)
    assert not choose_compile(False, steps=100, minutes=None).on


def test_an_own_compiler_counts(compiler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler(False)
    monkeypatch.setattr(compilation.shutil, "which", lambda name: name if name == "my-c++" else None)
    monkeypatch.setenv("CXX", "my-c++")
    assert choose_compile("auto", steps=100, minutes=None).on
    monkeypatch.setenv("CXX", "missing-c++")
    assert not choose_compile("auto", steps=100, minutes=None).on


def test_kernels_are_kept_in_the_cache_unless_told_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "mine")
    use_compile_cache()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "mine"
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    use_compile_cache()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "cache" / "inductor")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "put back")  # so that the variable is gone after the test
