"""Memory-mapped files that release their pages, so that reading a whole large file takes little memory."""

import ctypes
import mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class MappedFile:
    """The bytes of a file as an array. `release` unmaps the pages read so far; the system may still cache them.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path, dtype: Any):
        with path.open("rb") as stream:
            size = path.stat().st_size
            # An empty file cannot be mapped.
            self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) if size else None
        self.array: NDArray[Any] = np.frombuffer(self._map if self._map is not None else b"", dtype=dtype)
        if self._map is not None and hasattr(mmap, "MADV_RANDOM"):
            self._map.madvise(mmap.MADV_RANDOM)  # rows are read in random order, so read-ahead is wasted

    def release(self) -> None:
        """Release the pages that were read."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


def release_pages(array: NDArray[Any]) -> None:
    """Release the whole pages of a contiguous array that is mapped from a file and was never written to.

    Never call this on other arrays: anonymous memory loses its contents.
    """
    if not hasattr(mmap, "MADV_DONTNEED") or not array.size:
        return
    page = mmap.PAGESIZE
    start = -(-array.ctypes.data // page) * page
    end = (array.ctypes.data + array.nbytes) // page * page
    if end > start:
        library = ctypes.CDLL(None, use_errno=True)
        library.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)
