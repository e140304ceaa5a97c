"""Memory of this process: its peak, and when freed memory goes back to the system."""

import ctypes
import gc
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch

from gemma4vec.machine.device import choose_device

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# Thresholds that keep everything, and those to which glibc's own grow (DEFAULT_MMAP_THRESHOLD_MAX, and twice that).
_KEEPING, _ITS_OWN = (1 << 30, 2**31 - 1), (32 << 20, 64 << 20)


def keep_freed_memory(keep: bool = True) -> None:
    """Let C's allocator keep what is freed for the next step instead of giving it to the system and asking again.

    Each step allocates the same gigabytes of activations; by default glibc maps them again, page fault by page fault
    (measured: 5 to 9% of a training step). `release_memory` gives them back all the same; `keep=False` goes back to
    glibc's own thresholds.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mmap, trim = _KEEPING if keep else _ITS_OWN
            mallopt(_M_MMAP_THRESHOLD, mmap)
            mallopt(_M_TRIM_THRESHOLD, trim)


@contextmanager
def quick_collections() -> Iterator[None]:
    """What is there now is left out of collections of garbage.

    Half a second of each goes into the two million objects of imported libraries, and a dry run collects ten times.
    What the caller had left out stays so afterwards.
    """
    frozen = gc.get_freeze_count()
    gc.freeze()
    try:
        yield
    finally:
        if not frozen:
            gc.unfreeze()


def release_memory() -> None:
    """Give the memory of a finished training back before the next large thing is loaded.

    C's allocator keeps what was freed (here gigabytes of activations) unless asked to; elsewhere than on Linux with
    glibc there is nothing to tell.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _on_gpu() -> bool:
    """Whether it is a GPU that trains and has begun to; one that is too old may be there, and may hold something."""
    return choose_device().name == "cuda" and bool(torch.cuda.max_memory_allocated())


def peak_memory_bytes() -> int:
    """Largest memory so far: of the GPU where one is used, else resident memory of the process."""
    if _on_gpu():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB


def start_peak() -> bool:
    """Restart the peak count of this process, or of its GPU. Return false if the system does not allow that."""
    if _on_gpu():
        torch.cuda.reset_peak_memory_stats()
        return True
    try:
        # proc(5): resets the high-water mark of resident memory.
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return True
    except OSError:
        return False


def peak_since_start() -> int:
    """Largest memory since `start_peak`, in bytes."""
    if _on_gpu():
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    lines = (line.split() for line in status.splitlines())
    return next((int(words[1]) * 1024 for words in lines if words[0] == "VmHWM:"), 0)


def memory_now() -> int:
    """What this process, or its GPU, holds at the moment, in bytes."""
    if _on_gpu():
        return torch.cuda.memory_allocated()
    return int(psutil.Process().memory_info().rss)
