"""Does it fit into memory? Bytes available, bytes needed, and one sentence where they do not fit.

What an evaluation, a corpus or a training batch needs is counted in its own room.
"""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gemma4vec.errors import InputError
from gemma4vec.machine.describe import memory_bytes

if TYPE_CHECKING:
    import torch

GB = 1e9


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes of a device: free for this process, and in total."""

    free: float
    total: float


def torchrun_count(variable: str, default: int) -> int:
    """A count that torchrun gives its processes in the environment, such as WORLD_SIZE.

    Raises:
        InputError: the variable is no whole number, or is below `default`.
    """
    text = os.environ.get(variable) or str(default)
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) >= default):
        raise InputError(f"{variable}={text[:40]} is no number of processes; unset it, or start with torchrun")
    return int(text)


def device_memory(device: "torch.device") -> DeviceMemory:
    """The memory of a device; processes that train together on one machine's CPU share it."""
    if device.type == "cuda":
        import torch

        free, total = torch.cuda.mem_get_info(device)
        return DeviceMemory(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device), total)
    total, free = memory_bytes()
    return DeviceMemory(free / torchrun_count("LOCAL_WORLD_SIZE", 1), total)


def free_memory() -> int:
    """Main memory that this process may still use, in bytes."""
    return memory_bytes()[1]


def format_bytes(size: float) -> str:
    """`1.2 GB`, or `12 MB` below 50 MB."""
    return f"{size / GB:.1f} GB" if size >= 5e7 else f"{size / 1e6:.0f} MB"


def require_memory(what: str, needed: float, free: float, remedy: str, *, parts: str = "") -> None:
    """Refuse work that needs more memory than is free.

    Args:
        what: subject of the sentence, such as `corpus.jsonl: a corpus of 3.0 GB`.
        needed: bytes.
        free: bytes.
        remedy: what a person can do.
        parts: what the memory is needed for.

    Raises:
        InputError: `needed` is more than `free`.
    """
    if needed > free:
        of = f" ({parts})" if parts else ""
        raise InputError(
            f"{what} takes about {format_bytes(needed)} of memory{of}, {format_bytes(free)} are free; {remedy}"
        )


@contextmanager
def paused_collections() -> Iterator[None]:
    """Collect no garbage while this is open.

    Imports and a tokenizer of 262,144 tokens make millions of objects that stay. The collector walks over all of them
    again and again: a quarter of a dry run's start.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
