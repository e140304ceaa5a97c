"""A GPU is used only where this torch has kernels for it; all of it made up."""

import pytest
import torch

from gemma4vec.machine import doctor
from gemma4vec.machine.device import choose_device


def pretend(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], built: list[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Example")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built)


@pytest.mark.parametrize(
    ("capability", "built", "name"),
    [
        ((9, 0), ["sm_75", "sm_80", "sm_90", "sm_120"], "cuda"),
        ((8, 9), ["sm_75", "sm_80", "sm_90"], "cuda"),  # machine code of its major version, from an earlier minor one
        ((7, 0), ["sm_75", "sm_80"], "cpu"),
        ((6, 1), ["sm_75", "sm_80", "compute_80"], "cpu"),
        ((12, 1), ["sm_90", "sm_120a"], "cuda"),
        ((10, 0), ["sm_80", "sm_90"], "cpu"),  # machine code is of no use to a later major version
        ((10, 0), ["sm_80", "compute_90"], "cuda"),  # PTX is
        ((9, 0), ["gfx90a"], "cuda"),  # nothing is known: torch has the last word
        ((9, 0), [], "cuda"),
    ],
)
def test_a_gpu_without_kernels_is_left_and_said_why(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], built: list[str], name: str
) -> None:
    pretend(monkeypatch, capability, built)
    found = choose_device()
    assert found.name == name
    assert bool(found.reason) is (name == "cpu")
    if name == "cpu":
        shown = ".".join(map(str, capability))
        assert f"Example has compute capability {shown}" in found.reason and "the CPU is used" in found.reason


def test_doctor_warns_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, (6, 1), ["sm_75"])
    monkeypatch.setattr(doctor, "list_gpus", lambda: [{"name": "Example", "memory_gb": 8.0, "capability": "6.1"}])
    check = doctor.check_gpu()
    assert check.state == "warn" and "kernels from 7.5 on" in check.finding


def test_without_a_gpu_there_is_nothing_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device().name == "cpu" and not choose_device().reason
