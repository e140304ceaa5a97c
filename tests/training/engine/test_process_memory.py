"""What the process holds: freed memory is kept while it trains, and counted on the device that does."""

import ctypes
import gc
import platform
from pathlib import Path

import pytest
import torch

from gemma4vec.machine.device import DeviceChoice
from gemma4vec.training.engine import process_memory as memory
from gemma4vec.training.engine.process_memory import (
    keep_freed_memory,
    peak_memory_bytes,
    quick_collections,
    release_memory,
)

_BLOCK = 256 << 20


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_kept_until_it_is_released() -> None:
    """By itself glibc maps a block of this size on its own, and gives it back as soon as it is freed."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes, libc.memset.argtypes = [ctypes.c_void_p], [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    keep_freed_memory()
    release_memory()  # else the block may lie where tests before this one left free memory
    before = resident()
    block = libc.malloc(_BLOCK)
    libc.memset(block, 1, _BLOCK)
    libc.free(block)
    assert resident() - before > 0.9 * _BLOCK
    release_memory()
    assert resident() - before < 0.5 * _BLOCK


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_peak_is_that_of_the_device_that_trains(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    monkeypatch.setattr(memory, "choose_device", lambda: DeviceChoice(device))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 77)
    assert (peak_memory_bytes() == 77) is (device == "cuda")


def test_what_a_caller_left_out_of_collections_stays_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each collection after a dry run would look through the libraries again, in a worker and in these tests."""
    count, calls = [0], []
    monkeypatch.setattr(gc, "get_freeze_count", lambda: count[0])
    for name in ("freeze", "unfreeze"):
        monkeypatch.setattr(gc, name, lambda name=name: calls.append(name))
    with quick_collections():
        assert calls == ["freeze"]
    assert calls == ["freeze", "unfreeze"]
    count[0] = 5
    with quick_collections():
        pass
    assert calls == ["freeze", "unfreeze", "freeze"]
