"""Vectors as points of a plane, to look at, and how little of their neighborhoods a plane keeps.

A map shows topics, not neighbors: on our suites two principal components keep 4% of each text's ten nearest. So
whoever draws one prints the share beside it, and takes evidence from the vectors themselves (Chari & Pachter 2023).

Legend: M documents, D dimension.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

NEIGHBORS = 10
FITTED = 20_000  # documents that the axes are fitted to, and neighbors are looked for among
ASKED = 300  # documents whose neighbors are compared
_BLOCK = 65_536

Vectors = NDArray[np.float32]


def principal_plane(vectors_MD: Vectors, *, seed: int = 0) -> Vectors:
    """The first two principal components of each vector, float32[M, 2].

    Axes are fitted to a sample of `FITTED` vectors; of the two directions of an axis, the one is taken in which its
    largest entry is positive. Fewer than two documents, or equal ones, lie in one point.
    """
    count, dimension = vectors_MD.shape
    if count < 2 or dimension < 2:
        return np.zeros((count, 2), dtype=np.float32)
    sample_SD = np.asarray(vectors_MD[_sample(count, FITTED, seed)], dtype=np.float64)
    mean_D = sample_SD.mean(axis=0)
    sample_SD -= mean_D
    _, axes_DD = np.linalg.eigh(sample_SD.T @ sample_SD)
    axes_D2 = axes_DD[:, -1:-3:-1]
    axes_D2 = axes_D2 * np.where(axes_D2[np.abs(axes_D2).argmax(axis=0), [0, 1]] < 0.0, -1.0, 1.0)
    found_M2 = np.empty((count, 2), dtype=np.float32)
    for start in range(0, count, _BLOCK):
        block = np.asarray(vectors_MD[start : start + _BLOCK], dtype=np.float64)
        found_M2[start : start + _BLOCK] = (block - mean_D) @ axes_D2
    return found_M2


def kept_neighbors(
    vectors_MD: Vectors, plane_M2: Vectors, *, neighbors: int = NEIGHBORS, seed: int = 0
) -> float | None:
    """The share of nearest neighbors (by inner product) that are nearest in the plane too: mean over a sample.

    Neighbors are looked for among `FITTED` documents. None for fewer documents than neighbors.
    """
    rows_S = _sample(len(vectors_MD), FITTED, seed)
    if len(rows_S) <= neighbors:
        return None
    vectors_SD, plane_S2 = np.asarray(vectors_MD[rows_S], dtype=np.float32), plane_M2[rows_S].astype(np.float64)
    asked = min(ASKED, len(rows_S))
    scores_AS = vectors_SD[:asked] @ vectors_SD.T
    distances_AS = ((plane_S2[:asked, None, :] - plane_S2[None, :, :]) ** 2).sum(axis=2)
    own = np.arange(asked)
    scores_AS[own, own], distances_AS[own, own] = -np.inf, np.inf
    near_AK = np.argpartition(-scores_AS, neighbors - 1, axis=1)[:, :neighbors]
    close_AK = np.argpartition(distances_AS, neighbors - 1, axis=1)[:, :neighbors]
    kept = [len(set(a) & set(b)) for a, b in zip(near_AK.tolist(), close_AK.tolist(), strict=True)]
    return float(np.mean(kept)) / neighbors


def inside_polygon(points_M2: Vectors, corners: Sequence[tuple[float, float]]) -> NDArray[np.bool_]:
    """Whether each point is inside a polygon, bool[M], by the even-odd rule; the last corner joins the first."""
    inside_M = np.zeros(len(points_M2), dtype=bool)
    x_M, y_M = (points_M2[:, axis].astype(np.float64) for axis in (0, 1))
    for (x, y), (next_x, next_y) in zip(corners, [*corners[1:], *corners[:1]], strict=True):
        if y == next_y:
            continue  # a level edge is crossed by no level ray
        crosses_M = (y_M < y) != (y_M < next_y)
        inside_M ^= crosses_M & (x_M < x + (y_M - y) / (next_y - y) * (next_x - x))
    return inside_M


def _sample(count: int, most: int, seed: int) -> NDArray[np.int64]:
    """Rows in random order, at most `most`."""
    return np.random.default_rng(seed).permutation(count)[:most]
