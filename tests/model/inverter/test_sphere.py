"""Turning and mixing unit vectors: angles, lengths, directions."""

import numpy as np
import pytest

from gemma4vec.model.inverter.sphere import slerp, turn


def units(count: int, dimension: int, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal((count, dimension))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def test_a_vector_is_turned_by_its_angle_and_stays_a_unit() -> None:
    vectors, angles = units(200, 16), np.linspace(0, 1.2, 200)
    turned = turn(vectors, angles, np.random.default_rng(1))
    assert np.allclose(np.linalg.norm(turned, axis=1), 1, atol=1e-12)
    assert np.allclose(np.arccos(np.clip((vectors * turned).sum(axis=1), -1, 1)), angles, atol=1e-6)
    assert not np.allclose(turned, turn(vectors, angles, np.random.default_rng(2)))


def test_directions_are_uniform_in_the_tangent_plane() -> None:
    vectors = np.tile([1.0, 0.0, 0.0], (20_000, 1))
    tangent = turn(vectors, np.full(20_000, 0.3), np.random.default_rng(1))[:, 1:]
    covariance = tangent.T @ tangent / len(tangent) / np.sin(0.3) ** 2
    assert np.allclose(covariance, 0.5 * np.eye(2), atol=0.02) and np.allclose(tangent.mean(axis=0), 0, atol=0.01)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_a_mixture_lies_on_the_arc_at_its_share_of_the_angle(share: float) -> None:
    first, second = units(50, 8, 1), units(50, 8, 2)
    mixed = slerp(first, second, np.full(50, share))

    def angle(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return np.arccos(np.clip((one * other).sum(axis=1), -1, 1))

    whole = angle(first, second)
    assert np.allclose(angle(first, mixed), share * whole, atol=1e-6)
    assert np.allclose(angle(mixed, second), (1 - share) * whole, atol=1e-6)  # on the arc: no detour
    assert np.allclose(np.linalg.norm(mixed, axis=1), 1, atol=1e-12)


def test_equal_and_opposite_vectors_have_no_arc() -> None:
    first = units(2, 4)
    for other in (first, -first):
        assert np.allclose(slerp(first, other, np.full(2, 0.3)), first, atol=1e-12)
