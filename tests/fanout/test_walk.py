"""Walks on the sphere: against rotations by hand, and what has no way."""

import numpy as np
import pytest
from scipy.spatial import geometric_slerp

from gemma4vec.errors import InputError
from gemma4vec.fanout.walk import angle_between, random_walk, slerp, step_angles


def unit(generator: np.random.Generator, d: int = 16) -> np.ndarray:
    found = generator.standard_normal(d)
    return (found / np.linalg.norm(found)).astype(np.float32)


def test_points_are_those_of_scipy_and_of_unit_length() -> None:
    generator = np.random.default_rng(1)
    for _ in range(20):
        start, end = unit(generator), unit(generator)
        whole = angle_between(start, end)
        found = slerp(start, end, [whole * share for share in (0, 0.25, 0.5, 1)])
        start_, end_ = (one.astype(float) / np.linalg.norm(one.astype(float)) for one in (start, end))
        np.testing.assert_allclose(found, geometric_slerp(start_, end_, [0, 0.25, 0.5, 1]), atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
        np.testing.assert_allclose(slerp(start, end, [1.25 * whole]) @ start, np.cos(1.25 * whole), atol=1e-5)


def test_angles_are_exact_at_both_ends() -> None:
    for angle in (1e-3, 0.7, np.pi - 1e-3):
        a, b = np.array([1.0, 0.0]), np.array([np.cos(angle), np.sin(angle)])
        assert angle_between(a, b) == pytest.approx(angle, rel=1e-9)


def test_equal_and_opposite_vectors_have_no_way() -> None:
    vector = unit(np.random.default_rng(2))
    with pytest.raises(InputError, match="equals its target's"):
        slerp(vector, vector, [0.1])
    with pytest.raises(InputError, match="opposite to its target's"):
        slerp(vector, -vector, [0.1])


def test_a_random_walk_has_the_angles_asked_for_and_another_direction_for_each_seed() -> None:
    start = unit(np.random.default_rng(3), 64)
    one = random_walk(start, [0.2, 0.9], np.random.default_rng(0))
    np.testing.assert_allclose(one @ start, np.cos([0.2, 0.9]), atol=1e-6)
    np.testing.assert_array_equal(one, random_walk(start, [0.2, 0.9], np.random.default_rng(0)))
    directions = np.stack([random_walk(start, [np.pi / 2], np.random.default_rng(n))[0] for n in range(400)])
    assert np.abs(directions.mean(axis=0)).max() < 0.03  # even on the sphere: 1 / sqrt(64 * 400) each


@pytest.mark.parametrize(("degrees", "count"), [(61, 15), (1, 1), (3, 1), (179, 20)])
def test_steps_are_equal_and_end_at_the_target(degrees: float, count: int) -> None:
    found = step_angles(np.radians(degrees), 4, 20)
    assert len(found) == count and found[-1] == pytest.approx(np.radians(degrees))
    np.testing.assert_allclose(np.diff([0, *found]), found[0])


def test_a_step_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match=r"^--step-degrees 0"):
        step_angles(1.0, 0, 20)
