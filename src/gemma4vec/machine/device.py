"""Device choice: a GPU that this torch has kernels for, otherwise the CPU. Copies to it, without waiting."""

import re
from dataclasses import dataclass

import torch
from torch import Tensor

# Below it there is no compiler for torch.compile (Triton).
MIN_COMPILE_CAPABILITY = (7, 0)


@dataclass(frozen=True)
class DeviceChoice:
    """`cuda` or `cpu`; `reason` says why a GPU that is there is not used, and is empty otherwise."""

    name: str
    reason: str = ""


def choose_device() -> DeviceChoice:
    """The device for training and encoding."""
    if not torch.cuda.is_available():
        return DeviceChoice("cpu")
    capability = torch.cuda.get_device_capability()
    built = torch.cuda.get_arch_list()
    if built and not _has_kernels(capability, built):
        least = min((found for name in built if (found := _capability(name))), default=(0, 0))
        return DeviceChoice(
            "cpu",
            f"{torch.cuda.get_device_name()} has compute capability {_shown(capability)}, and this torch has kernels "
            f"from {_shown(least)} on: the CPU is used; an older torch would have them",
        )
    return DeviceChoice("cuda")


def _has_kernels(capability: tuple[int, int], built: list[str]) -> bool:
    """Machine code (`sm_80`) runs on its major version from its minor one on, PTX (`compute_80`) on all later ones."""
    for name in built:
        found = _capability(name)
        if found is None:  # unknown name: do not rule the GPU out
            return True
        if found <= capability and (name.startswith("compute") or found[0] == capability[0]):
            return True
    return False


def _capability(name: str) -> tuple[int, int] | None:
    """`sm_90a` is (9, 0), `sm_120` is (12, 0)."""
    found = re.fullmatch(r"(?:sm|compute)_(\d+)(\d)[a-z]?", name)
    return (int(found[1]), int(found[2])) if found else None


def _shown(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Copy a tensor to a device; pinned memory lets a copy to a GPU run asynchronously."""
    if torch.device(device).type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
