"""Which vectors are finite and of unit length. Search by inner product needs that of every row.

Shapes: M rows of D dimensions.
"""

import numpy as np
from numpy.typing import NDArray

UNIT_TOLERANCE = 1e-2  # vectors normalized in bf16 and then converted to fp32 are off by up to 4e-3


def find_unit_rows(vectors_MD: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return bool[M]: which rows are finite and of unit length."""
    return are_unit_lengths(np.linalg.norm(vectors_MD, axis=1))


def are_unit_lengths(lengths_M: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return bool[M]: which lengths are one, up to rounding; a length that is not a number is not."""
    good_M: NDArray[np.bool_] = np.abs(lengths_M - 1) <= UNIT_TOLERANCE
    return good_M
