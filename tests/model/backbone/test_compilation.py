"""Whether layers are compiled, with the reason in words."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.exc import TorchDynamoException
from torch._dynamo.utils import counters
from torch._functorch import config as functorch
from torch._inductor.runtime import cache_dir_utils

from gemma4vec.errors import InputError
from gemma4vec.machine import compiler as machine
from gemma4vec.machine.device import DeviceChoice
from gemma4vec.model.backbone import compilation
from gemma4vec.model.backbone.compilation import choose_compile, use_compile_cache


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pretend that there is a compiler, or none."""

    def pretend(there: bool) -> None:
        monkeypatch.delenv("CXX", raising=False)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(machine.shutil, "which", lambda name: f"/usr/bin/{name}" if there else None)

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


@pytest.mark.parametrize(("minutes", "least", "on"), [(0.5, 29, False), (0.5, 30, True), (5.0, 10, True)])
def test_a_least_number_of_steps_is_work_too(compiler: Any, minutes: float, least: int, on: bool) -> None:
    compiler(True)
    assert choose_compile("auto", steps=None, minutes=minutes, least_steps=least).on is on


@pytest.mark.parametrize(
    ("steps", "minutes", "cpu", "cuda"),
    [(30, None, True, False), (200, None, True, True), (None, 1.0, True, False), (None, 3.0, True, True)],
)
def test_a_gpu_needs_more_ahead(
    compiler: Any, monkeypatch: pytest.MonkeyPatch, steps: int | None, minutes: float | None, cpu: bool, cuda: bool
) -> None:
    compiler(True)
    monkeypatch.setattr(compilation, "_missing", lambda: None)
    for device, on in (("cpu", cpu), ("cuda", cuda)):
        monkeypatch.setattr(compilation, "choose_device", lambda device=device: DeviceChoice(device))
        assert choose_compile("auto", steps=steps, minutes=minutes).on is on


def test_without_a_compiler(compiler: Any) -> None:
    compiler(False)
    choice = choose_compile("auto", steps=100, minutes=None)
    assert not choice.on and "no C++ compiler" in choice.reason and "uncompiled" in choice.reason
    with pytest.raises(
        InputError, match=r"layout\.compile=true, but there is no C\+\+ compiler .*; install what is missing"
    ):
        choose_compile(True, steps=100, minutes=None)
    assert not choose_compile(False, steps=100, minutes=None).on


def test_an_own_compiler_counts(compiler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler(False)
    monkeypatch.setattr(machine.shutil, "which", lambda name: name if name == "my-c++" else None)
    monkeypatch.setenv("CXX", "my-c++")
    assert choose_compile("auto", steps=100, minutes=None).on
    monkeypatch.setenv("CXX", "missing-c++")
    choice = choose_compile("auto", steps=100, minutes=None)
    assert not choice.on and choice.reason.startswith("CXX=missing-c++ is not there: layers run uncompiled")


@pytest.mark.parametrize(("capability", "on"), [((6, 1), False), ((7, 0), True)])
def test_on_a_gpu_its_age_and_a_c_compiler_decide(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], on: bool
) -> None:
    monkeypatch.setattr(compilation, "choose_device", lambda: DeviceChoice("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Example")
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(machine.shutil, "which", lambda name: name if name == "gcc" else None)
    choice = choose_compile("auto", steps=1000, minutes=None)
    assert choice.on is on
    assert on or choice.reason.startswith("Example has compute capability 6.1, torch.compile needs 7.0: layers run")
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    assert on is ("no C compiler" in choose_compile("auto", steps=1000, minutes=None).reason)


def test_kernels_are_kept_in_the_cache_unless_told_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "mine")
    use_compile_cache()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "mine"
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    use_compile_cache()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "cache" / "inductor")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    monkeypatch.setattr(cache_dir_utils, "default_cache_dir", lambda: str(tmp_path / "torchs"))
    assert cache_dir_utils.cache_dir() == os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "torchs")
    use_compile_cache()  # what torch's compiler writes there when it is imported is nobody's setting
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "cache" / "inductor")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "put back")  # so that the variable is gone after the test


@pytest.mark.slow
def test_plans_of_own_gradients_are_kept_by_what_these_compute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    monkeypatch.setattr(functorch, "autograd_cache_allow_custom_autograd_functions", False)
    use_compile_cache()

    def gradient(factor: float) -> tuple[float, int]:
        """The gradient that is computed, and how many plans were found on disk."""

        class Own(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
                return x * 2

            @staticmethod
            def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
                return grad * factor

        torch._dynamo.reset()
        counters.clear()
        x = torch.ones(8, requires_grad=True)
        own: Any = torch.compile(lambda x: Own.apply(x).sum(), fullgraph=True)
        own(x).backward()
        assert x.grad is not None
        return float(x.grad[0]), counters["aot_autograd"]["autograd_cache_hit"]

    assert gradient(3.0) == (3.0, 0)
    assert gradient(3.0) == (3.0, 1)
    assert gradient(5.0) == (5.0, 0)


def test_a_broken_kernel_in_the_cache_is_made_again_and_nothing_else_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    kernel, other = tmp_path / "inductor/io/kernel.main.so", tmp_path / "other.so"
    kernel.parent.mkdir(parents=True)
    calls: list[str] = []

    class Layers:
        def compile_layers(self) -> None:
            calls.append("compile")

        def uncompile_layers(self) -> None:
            calls.append("uncompile")

    def work(file: Path) -> int:
        if file.is_file():
            raise TorchDynamoException(f"torch._inductor.exc.InductorError: ImportError: {file}: file too short\n")
        return 7

    kernel.touch()
    assert compilation.run_compiled(Layers(), lambda: work(kernel)) == 7  # type: ignore[arg-type]
    assert calls == ["compile", "uncompile", "compile"] and not kernel.exists()
    other.touch()
    with pytest.raises(TorchDynamoException, match="file too short"):
        compilation.run_compiled(Layers(), lambda: work(other))  # type: ignore[arg-type]
    assert other.exists() and calls[-1] == "uncompile"
    assert not compilation.forget_broken_kernel(ValueError("something else"))
