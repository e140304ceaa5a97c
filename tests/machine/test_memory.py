"""Free memory, sizes as people read them, and the line that refuses what does not fit."""

import pytest
import torch

from gemma4vec.errors import InputError
from gemma4vec.machine import memory
from gemma4vec.machine.memory import (
    DeviceMemory,
    device_memory,
    format_bytes,
    free_memory,
    require_memory,
    torchrun_count,
)


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 MB"), (1.6e6, "2 MB"), (49e6, "49 MB"), (5e7, "0.1 GB"), (3.26e9, "3.3 GB")]
)
def test_sizes_are_read_in_mb_below_50_mb(size: float, text: str) -> None:
    assert format_bytes(size) == text


def test_work_that_does_not_fit_is_refused_in_one_line() -> None:
    require_memory("rows.jsonl: a corpus", 10.0, 10.0, "use a part")
    with pytest.raises(InputError) as refused:
        require_memory("rows.jsonl: a corpus", 3e9, 2e9, "use a part", parts="vectors 2.5 GB")
    line = "rows.jsonl: a corpus takes about 3.0 GB of memory (vectors 2.5 GB), 2.0 GB are free; use a part"
    assert str(refused.value) == line
    with pytest.raises(InputError, match=r"^a takes about 0\.1 GB of memory, 0 MB are free; b$"):
        require_memory("a", 6e7, 0, "b")


def test_processes_of_one_cpu_share_its_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "memory_bytes", lambda: (16_000, 8_000))
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert free_memory() == 8_000
    assert device_memory(torch.device("cpu")) == DeviceMemory(free=8_000, total=16_000)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert device_memory(torch.device("cpu")) == DeviceMemory(free=2_000, total=16_000)


def test_a_gpus_free_memory_counts_what_torch_holds_unused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1_000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 60)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 20)
    assert device_memory(torch.device("cuda")) == DeviceMemory(free=140, total=1_000)


@pytest.mark.parametrize("text", ["x", "0", "-1", "²", "9" * 5000, "1.5"])
def test_a_count_of_processes_that_is_none_is_named(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", text)
    with pytest.raises(InputError, match=r"^WORLD_SIZE="):
        torchrun_count("WORLD_SIZE", 1)


def test_a_count_of_processes_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert torchrun_count("WORLD_SIZE", 1) == 8
    monkeypatch.setenv("WORLD_SIZE", "")
    assert torchrun_count("WORLD_SIZE", 1) == 1
