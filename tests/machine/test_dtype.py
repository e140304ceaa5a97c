"""The choice of the float type, on made-up machines."""

from pathlib import Path

import pytest
import torch

from gemma4vec.errors import InputError
from gemma4vec.machine import dtype
from gemma4vec.machine.dtype import bf16_units, choose_dtype, cpu_flags


@pytest.mark.parametrize(
    ("flags", "units"),
    [
        ("avx2 avx512f", []),
        ("avx512_bf16", ["AVX512-BF16"]),
        ("amx_tile amx_bf16 avx512_bf16", ["AMX", "AVX512-BF16"]),
        ("amx_tile", []),  # tiles without bf16 products
        ("asimd bf16", ["Arm BF16"]),
        ("", []),
    ],
)
def test_cpu(monkeypatch: pytest.MonkeyPatch, flags: str, units: list[str]) -> None:
    monkeypatch.setattr(dtype, "cpu_flags", lambda: set(flags.split()))
    assert bf16_units(set(flags.split())) == units
    choice = choose_dtype("cpu")
    assert choice.dtype == (torch.bfloat16 if units else torch.float32)
    assert all(unit in choice.reason for unit in units)
    assert choice.reason.startswith("bf16:" if units else "fp32:")


@pytest.mark.parametrize(
    ("capability", "chosen"), [((7, 5), torch.float32), ((8, 0), torch.bfloat16), ((12, 0), torch.bfloat16)]
)
def test_cuda(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], chosen: torch.dtype) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Example")
    choice = choose_dtype("cuda:0")
    assert choice.dtype == chosen
    assert "Example" in choice.reason


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [("bf16", torch.bfloat16), ("float32", torch.float32), (torch.float64, torch.float64), ("fp32", torch.float32)],
)
def test_what_is_asked_for_is_given(wanted: str | torch.dtype, chosen: torch.dtype) -> None:
    assert choose_dtype("cpu", wanted).dtype == chosen


def test_bf16_that_is_asked_for_and_slow_is_given_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dtype, "cpu_flags", lambda: {"avx2"})
    choice = choose_dtype("cpu", "bf16")
    assert choice.dtype == torch.bfloat16 and choice.slow
    assert "slower than fp32, which model.dtype=auto takes" in choice.reason
    assert choice.reason.startswith("asked for; emulated here, 4 to 200 times slower")
    assert choose_dtype("cpu", "fp32").reason == "asked for" and not choose_dtype("cpu", "fp32").slow
    assert not choose_dtype("cpu", "auto").slow
    monkeypatch.setattr(dtype, "cpu_flags", lambda: {"avx512_bf16"})
    assert choose_dtype("cpu", "bf16").reason == "asked for" and not choose_dtype("cpu", "bf16").slow


@pytest.mark.parametrize("wanted", ["fp16", "int8", "", torch.float16])
def test_what_is_not_offered_is_refused(wanted: str | torch.dtype) -> None:
    with pytest.raises(InputError, match="use auto, bf16 or fp32"):
        choose_dtype("cpu", wanted)


def test_flags_of_x86_and_arm(tmp_path: Path) -> None:
    (tmp_path / "x86").write_text("processor\t: 0\nflags\t\t: fpu amx_tile\n\nflags\t\t: other\n")
    (tmp_path / "arm").write_text("processor\t: 0\nFeatures\t: fp asimd bf16\n")
    assert cpu_flags(tmp_path / "x86") == {"fpu", "amx_tile"}
    assert cpu_flags(tmp_path / "arm") == {"fp", "asimd", "bf16"}
    assert cpu_flags(tmp_path / "none") == set()
