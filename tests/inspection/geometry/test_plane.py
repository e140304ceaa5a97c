"""The plane against scikit-learn's components and neighbors found one by one."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from gemma4vec.inspection.geometry.plane import kept_neighbors, principal_plane


def unit_vectors(count: int, dimension: int = 12, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(count, dimension)) * np.linspace(3.0, 0.5, dimension)
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def test_the_plane_is_that_of_the_first_two_components() -> None:
    vectors = unit_vectors(300)
    ours, theirs = principal_plane(vectors), PCA(2).fit_transform(vectors.astype(np.float64))
    for axis in (0, 1):
        assert np.abs(ours[:, axis]) == pytest.approx(np.abs(theirs[:, axis]), abs=1e-5)
    assert (principal_plane(vectors) == ours).all()


def test_kept_neighbors_equal_those_found_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = unit_vectors(80)
    plane = principal_plane(vectors)
    kept = []
    for row in range(80):
        others = [other for other in range(80) if other != row]
        near = sorted(others, key=lambda other: -float(vectors[row] @ vectors[other]))[:10]
        close = sorted(others, key=lambda other: float(((plane[row] - plane[other]) ** 2).sum()))[:10]
        kept.append(len(set(near) & set(close)) / 10)
    assert kept_neighbors(vectors, plane) == pytest.approx(np.mean(kept))


def test_vectors_of_a_plane_keep_all_neighbors() -> None:
    angles = np.sort(np.random.default_rng(0).uniform(0, 2 * np.pi, 50))
    circle = np.zeros((50, 5), dtype=np.float32)
    circle[:, 1], circle[:, 3] = np.cos(angles), np.sin(angles)
    assert kept_neighbors(circle, principal_plane(circle)) == 1.0


@pytest.mark.parametrize("count", [0, 1, 2, 10])
def test_few_or_equal_documents(count: int) -> None:
    vectors = np.tile(np.eye(1, 4, dtype=np.float32), (count, 1))
    plane = principal_plane(vectors)
    assert plane.shape == (count, 2) and np.isfinite(plane).all() and kept_neighbors(vectors, plane) is None
