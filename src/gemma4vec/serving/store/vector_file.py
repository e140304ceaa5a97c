"""Vectors in a file of numpy's format, mapped into memory."""

import io
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray


def npy_header(count: int, dimension: int) -> bytes:
    """Return the header of a file of float32[count, dimension]."""
    stream = io.BytesIO()
    npy.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (count, dimension)})
    return stream.getvalue()


def map_vectors(path: Path, count: int, dimension: int) -> NDArray[np.float32]:
    """Map the vectors; ValueError if header or size are others."""
    header = npy_header(count, dimension)
    with path.open("rb") as stream:
        same = stream.read(len(header)) == header
    if not same or path.stat().st_size != len(header) + 4 * count * dimension:
        raise ValueError(f"{path.name} does not hold {count} vectors of dimension {dimension}")
    if not count:
        return np.empty((0, dimension), np.float32)
    mapped = np.memmap(path, dtype="<f4", mode="r", offset=len(header), shape=(count, dimension))
    return mapped.view(np.ndarray)  # whose rows are taken much faster
