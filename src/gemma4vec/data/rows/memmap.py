"""Files as arrays, mapped into memory, whose pages are given back: reading all of a large file takes little memory."""

import ctypes
import mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class MappedFile:
    """The bytes of a file as an array. `give_back` lets go of the pages read so far (the system may still cache them).

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
            self._map.madvise(mmap.MADV_RANDOM)  # rows come in random order: reading ahead would be for nothing

    def give_back(self) -> None:
        """Let go of the pages that were read."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


def give_back_pages(array: NDArray[Any]) -> None:
    """Let go of the whole pages below a contiguous array that is mapped from a file and was never written to.

    On memory that no file stands behind this would lose its contents: only for arrays that are known to be mapped.
    """
    if not hasattr(mmap, "MADV_DONTNEED") or not array.size:
        return
    page = mmap.PAGESIZE
    start = -(-array.ctypes.data // page) * page
    end = (array.ctypes.data + array.nbytes) // page * page
    if end > start:
        library = ctypes.CDLL(None, use_errno=True)
        library.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)
