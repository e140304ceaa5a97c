"""Walks on the sphere of unit vectors: from a query toward a target, and in random directions by the same angles.

The chord that is normalized afterwards (Adolphs et al., 2022, "Decoding a Neural Retriever's Latent Space for Query
Suggestion", arXiv:2210.12084) lies on the same arc; its steps differ in length by at most three degrees. Here steps are
equal angles, and every point has unit length, as what a decoder learned from.

Shapes: d dimensions, K points.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gemma4vec.errors import InputError

Vectors = NDArray[np.float32]
_SMALLEST_ANGLE = 1e-3  # radians: nearer than fp32 can tell apart


def angle_between(a_d: Vectors, b_d: Vectors) -> float:
    """The angle of two unit vectors in radians, 0 to pi; exact for near and for opposite ones too.

    Kahan's formula: arccos loses half of the digits at both ends.
    """
    a, b = a_d.astype(np.float64), b_d.astype(np.float64)
    return 2 * float(np.arctan2(np.linalg.norm(a - b), np.linalg.norm(a + b)))


def slerp(start_d: Vectors, end_d: Vectors, angles_K: Sequence[float] | NDArray[np.float64]) -> Vectors:
    """Points `[K, d]` at these angles (radians) from `start_d` on the great circle toward `end_d`.

    Shoemake 1985, "Animating Rotation with Quaternion Curves". Angles beyond the target's go on past it.

    Raises:
        InputError: start and end are equal or opposite: there is no way, or there are many.
    """
    angle = angle_between(start_d, end_d)
    if angle < _SMALLEST_ANGLE:
        raise InputError("the query's vector equals its target's, so there is no way between them; name another target")
    if angle > np.pi - _SMALLEST_ANGLE:
        raise InputError(
            "the query's vector is opposite to its target's, so every way is as short; name another target"
        )
    return _along(start_d, end_d, np.asarray(angles_K, dtype=np.float64))


def random_walk(start_d: Vectors, angles_K: Sequence[float], generator: np.random.Generator) -> Vectors:
    """Points `[K, d]` at these angles from `start_d` in one direction, drawn evenly among all.

    What a walk to a target gains beyond this one is what its direction is worth.
    """
    return _along(start_d, generator.standard_normal(len(start_d)), np.asarray(angles_K, dtype=np.float64))


def _along(start_d: Vectors, toward_d: NDArray[np.floating], angles_K: NDArray[np.float64]) -> Vectors:
    """Points at angles from `start_d` in the plane of both vectors."""
    start, toward = start_d.astype(np.float64), toward_d.astype(np.float64)
    tangent = toward - (toward @ start) * start
    tangent /= np.linalg.norm(tangent)
    points_Kd = np.cos(angles_K)[:, None] * start + np.sin(angles_K)[:, None] * tangent
    return np.asarray(points_Kd, dtype=np.float32)


def step_angles(whole: float, step_degrees: float, most: int) -> list[float]:
    """Angles (radians) of equal steps from the start, which is left out, to `whole`, which is the last.

    At most `most` of them: a longer way has longer steps.

    Raises:
        InputError: the step is not above 0.
    """
    if not step_degrees > 0:
        raise InputError(f"--step-degrees {step_degrees}: a step is above 0 degrees; 4 is usual")
    count = int(min(max(round(np.degrees(whole) / step_degrees), 1), most))
    return [whole * (k + 1) / count for k in range(count)]


def way(start_d: Vectors, end_d: Vectors, step_degrees: float, most: int) -> tuple[list[float], Vectors]:
    """Angles (radians) and points `[K, d]` of a walk, the target last.

    Raises:
        InputError: start and end are equal or opposite; the step is not above 0.
    """
    angles = step_angles(angle_between(start_d, end_d), step_degrees, most)
    return angles, slerp(start_d, end_d, angles)


def changes(texts: Sequence[str]) -> list[int]:
    """Places along a walk whose text is not the one before: a step is where the text changes."""
    return [place for place, text in enumerate(texts) if place == 0 or text != texts[place - 1]]


def mean_direction(vectors_Nd: Vectors) -> Vectors:
    """The mean `[d]` of unit vectors, of unit length."""
    mean_d = vectors_Nd.mean(axis=0)
    return np.asarray(mean_d / np.linalg.norm(mean_d), dtype=np.float32)
