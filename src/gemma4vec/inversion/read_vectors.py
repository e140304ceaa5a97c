"""Vectors of a file, checked: what a decoder is given must be what the encoder makes.

Shapes: N vectors, d dimensions.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gemma4vec.errors import InputError
from gemma4vec.files import NPY_ERRORS

Vectors = NDArray[np.float32]

# float16 rounds a unit vector's length by less than this.
_TOLERATED = 2e-3


def read_vectors(file: Path, dimension: int, *, normalize: bool = False) -> Vectors:
    """Unit vectors `[N, d]` of a `.npy` file; one vector `[d]` counts as `[1, d]`.

    Args:
        file: the file; nothing in it is ever run (pickles are refused).
        dimension: d of the encoder.
        normalize: scale vectors of other lengths to length one, in place of refusing them.

    Raises:
        InputError: one line: no such file, no numbers, another width, NaN, a zero vector, another length than one.
    """
    try:
        found = np.load(file, allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"--vectors: there is no file {file}") from error
    except NPY_ERRORS as error:
        reason = " ".join(str(error).split())[:120]
        if "allow_pickle" in reason or "pickle" in reason:
            reason = "it holds Python objects (a pickle), which are never loaded"
        raise InputError(f"--vectors: {file} is no array of numbers ({reason}); write it with numpy.save") from error
    if not isinstance(found, np.ndarray):
        raise InputError(f"--vectors: {file} holds several arrays; write the one with numpy.save")
    if found.dtype.kind != "f":
        raise InputError(
            f"--vectors: {file} has numbers of type {found.dtype}; vectors are float16, float32 or float64"
        )
    vectors_Nd = found[None] if found.ndim == 1 else found
    if vectors_Nd.ndim != 2 or vectors_Nd.shape[1] != dimension:
        raise InputError(
            f"--vectors: {file} has the shape {list(found.shape)}, the model's vectors are [N, {dimension}]; take the "
            "model that made them"
        )
    if not len(vectors_Nd):
        raise InputError(f"--vectors: {file} has no vectors")
    return check_vectors(vectors_Nd, str(file), normalize=normalize)


def check_vectors(vectors_Nd: NDArray[np.floating], name: str, *, normalize: bool = False) -> Vectors:
    """Vectors as float32 of length one.

    Raises:
        InputError: one line with the number of the first bad row, from 0.
    """
    wide_Nd = np.asarray(vectors_Nd, dtype=np.float64)
    finite_N = np.isfinite(wide_Nd).all(axis=1)
    if not finite_N.all():
        row, count = int(finite_N.argmin()), int((~finite_N).sum())
        raise InputError(f"--vectors: row {row} of {name} is not finite (NaN or infinite; {count:,} such rows)")
    lengths_N = np.linalg.norm(wide_Nd, axis=1)
    if not lengths_N.all():
        row, count = int(lengths_N.argmin()), int((lengths_N == 0).sum())
        raise InputError(f"--vectors: row {row} of {name} is zero, which has no direction ({count:,} such rows)")
    off_N = np.abs(lengths_N - 1.0) > _TOLERATED
    if off_N.any() and not normalize:
        row, count = int(off_N.argmax()), int(off_N.sum())
        raise InputError(
            f"--vectors: row {row} of {name} has length {lengths_N[row]:.4g}, not 1 ({count:,} of {len(off_N):,} do); "
            "give --normalize to scale them"
        )
    unit_Nd: Vectors = (wide_Nd / lengths_N[:, None]).astype(np.float32)
    return unit_Nd
