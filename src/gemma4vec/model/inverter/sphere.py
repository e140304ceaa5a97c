"""Moving unit vectors on their sphere: by a random angle, and between two of them.

Shapes: N vectors, D dimensions.
"""

import numpy as np
from numpy.typing import NDArray

# Below this sine, two vectors have no plane of their own: they are equal or opposite.
_NO_PLANE = 1e-6

Vectors = NDArray[np.floating]


def turn(vectors_ND: Vectors, angles_N: Vectors, generator: np.random.Generator) -> Vectors:
    """Turn each unit vector by its angle (radians) in a uniformly random direction; unit length is kept.

    The direction is a Gaussian without its part along the vector: uniform in the tangent plane.
    """
    if vectors_ND.shape[1] < 2:
        return vectors_ND
    drawn_ND = generator.standard_normal(vectors_ND.shape)
    drawn_ND -= (drawn_ND * vectors_ND).sum(axis=1, keepdims=True) * vectors_ND
    drawn_ND /= np.linalg.norm(drawn_ND, axis=1, keepdims=True)
    turned_ND = np.cos(angles_N)[:, None] * vectors_ND + np.sin(angles_N)[:, None] * drawn_ND
    return turned_ND / np.linalg.norm(turned_ND, axis=1, keepdims=True)


def slerp(from_ND: Vectors, to_ND: Vectors, shares_N: Vectors) -> Vectors:
    """Points of unit length on the arcs between two unit vectors each, `shares_N` of the angle from the first.

    Shoemake 1985 ("Animating rotation with quaternion curves"). Equal and opposite vectors have no single arc: the
    first is returned.
    """
    cosines_N = np.clip((from_ND * to_ND).sum(axis=1), -1.0, 1.0)
    angles_N = np.arccos(cosines_N)
    sines_N = np.sin(angles_N)
    has_plane_N = sines_N > _NO_PLANE
    safe_N = np.where(has_plane_N, sines_N, 1.0)
    first_N = np.where(has_plane_N, np.sin((1.0 - shares_N) * angles_N) / safe_N, 1.0)
    second_N = np.where(has_plane_N, np.sin(shares_N * angles_N) / safe_N, 0.0)
    mixed_ND = first_N[:, None] * from_ND + second_N[:, None] * to_ND
    return mixed_ND / np.linalg.norm(mixed_ND, axis=1, keepdims=True)
