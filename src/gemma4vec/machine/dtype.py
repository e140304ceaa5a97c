"""Float type choice: bf16 where the processor multiplies it fast, fp32 otherwise."""

from dataclasses import dataclass
from pathlib import Path

import torch

from gemma4vec.errors import InputError

_WANTED = {
    "bf16": torch.bfloat16,
    "bfloat16": torch.bfloat16,
    "fp32": torch.float32,
    "float32": torch.float32,
    "fp64": torch.float64,
    "float64": torch.float64,
}
# fp16 is missing on purpose: Gemma's activations leave its range (65,504) and become infinite.
_EMULATED = "4 to 200 times slower than fp32, which model.dtype=auto takes"
_FAST_BF16_CAPABILITY = (8, 0)  # NVIDIA Ampere


@dataclass(frozen=True)
class DtypeChoice:
    """The chosen type, the reason in words, and whether it was asked for although this machine emulates it."""

    dtype: torch.dtype
    reason: str
    slow: bool = False


def choose_dtype(device: "str | torch.device", wanted: "str | torch.dtype" = "auto") -> DtypeChoice:
    """The float type for a device.

    Args:
        device: `cpu`, `cuda`, `cuda:1`, `mps` or a torch device.
        wanted: `auto`, `bf16`, `fp32`, `fp64` or a torch type.

    Raises:
        InputError: another name, or fp16.
    """
    if isinstance(wanted, torch.dtype):
        wanted = str(wanted).removeprefix("torch.")
    if wanted != "auto":
        if wanted not in _WANTED:
            raise InputError(f"dtype {wanted!r} is not offered: use auto, bf16 or fp32")
        though = _though_slow(torch.device(device), _WANTED[wanted])
        return DtypeChoice(_WANTED[wanted], "asked for" + though, slow=bool(though))
    return _choose_for(torch.device(device))


def _though_slow(device: torch.device, asked: torch.dtype) -> str:
    """What to add where bf16 is asked for and has to be emulated: correct, and slower than fp32.

    Measured with AVX2 alone: products of 512 x 640 x 2048 take .44 GFLOPS in bf16, 92 in fp32; with AVX512 38 and 147.
    """
    known = device.type == "cpu" or (device.type == "cuda" and torch.cuda.is_available())
    if asked != torch.bfloat16 or not known:
        return ""
    fast = _choose_for(device)
    return "" if fast.dtype == asked else f"; emulated here, {_EMULATED}"


def _choose_for(device: torch.device) -> DtypeChoice:
    kind = device.type
    if kind == "cuda":
        return _choose_for_cuda(device)
    if kind == "cpu":
        return _choose_for_cpu()
    return DtypeChoice(torch.float32, f"fp32: bf16 is not known to be fast on {kind}")


def _choose_for_cuda(device: torch.device) -> DtypeChoice:
    capability = torch.cuda.get_device_capability(device)
    name = f"{torch.cuda.get_device_name(device)} (compute capability {capability[0]}.{capability[1]})"
    if capability >= _FAST_BF16_CAPABILITY:
        return DtypeChoice(torch.bfloat16, f"bf16: {name} multiplies it in hardware")
    return DtypeChoice(torch.float32, f"fp32: {name} has no fast bf16 (that starts at 8.0)")


def _choose_for_cpu() -> DtypeChoice:
    units = bf16_units(cpu_flags())
    if units:
        return DtypeChoice(torch.bfloat16, f"bf16: this CPU multiplies it in hardware ({', '.join(units)})")
    return DtypeChoice(torch.float32, "fp32: this CPU has no bf16 instructions (AMX, AVX512-BF16 or Arm BF16)")


def is_wide(dtype: torch.dtype) -> bool:
    """Whether a type is fp32 or wider, so that to advise fp32 would change nothing."""
    return torch.finfo(dtype).bits >= 32


def bf16_units(flags: set[str]) -> list[str]:
    """The bf16 units that a set of /proc/cpuinfo flags names, fastest first. Both AMX flags are needed for AMX."""
    units = []
    if {"amx_tile", "amx_bf16"} <= flags:
        units.append("AMX")
    if "avx512_bf16" in flags:
        units.append("AVX512-BF16")
    if "bf16" in flags:
        units.append("Arm BF16")
    return units


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> set[str]:
    """Instruction sets of the first processor (`flags` on x86, `Features` on Arm); empty where no file tells."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return set(value.split())
    return set()
