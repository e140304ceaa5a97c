"""Clusters of vectors against scikit-learn's k-means, and against loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from gemma4vec.data.batching import kmeans
from gemma4vec.data.batching.kmeans import chain_of_near, cluster_vectors, find_centers, merge_small, nearest_centers


def planted(count: int, each: int, spread: float, seed: int = 0, width: int = 16) -> np.ndarray:
    generator = np.random.default_rng(seed)
    centers = generator.standard_normal((count, width))
    vectors = np.repeat(centers, each, axis=0) + spread * generator.standard_normal((count * each, width))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def objective(vectors: np.ndarray, centers: np.ndarray) -> float:
    distances = ((vectors[:, None, :] - centers[None, :, :]) ** 2).sum(axis=2)
    return float(distances.min(axis=1).mean())


def test_the_objective_is_that_of_scikit_learn() -> None:
    vectors = planted(60, 20, 1.5)
    ours = [find_centers(vectors, 30, seed) for seed in range(6)]
    theirs = [
        KMeans(30, init="random", n_init=1, max_iter=20, random_state=seed).fit(vectors).inertia_ for seed in range(6)
    ]
    reached = [objective(vectors, centers) for centers in ours]
    assert np.mean(reached) == pytest.approx(np.mean(theirs) / len(vectors), rel=0.02)
    for centers, here in zip(ours, reached, strict=True):  # nothing is left to gain from where it ended
        gone_on = KMeans(30, init=centers, n_init=1, max_iter=100).fit(vectors).inertia_ / len(vectors)
        assert 0.98 * here < gone_on <= here * (1 + 1e-6)
    assert max(reached) < 0.9 * objective(vectors, vectors[::40])  # 30 vectors as they are


def test_centers_are_the_means_of_their_vectors() -> None:
    vectors = planted(5, 40, 0.2)
    centers = find_centers(vectors, 5, 1)
    labels = nearest_centers(vectors, centers)
    assert np.array_equal(labels, ((vectors[:, None] - centers[None]) ** 2).sum(axis=2).argmin(axis=1))
    for cluster in range(5):
        assert np.allclose(centers[cluster], vectors[labels == cluster].mean(axis=0), atol=1e-5)


def test_a_sample_of_many_vectors_in_half_precision_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = planted(8, 500, 0.1)
    monkeypatch.setattr(kmeans, "SAMPLE", 400)
    monkeypatch.setattr(kmeans, "BLOCK", 333)
    labels = cluster_vectors(vectors.astype(np.float16), 40, smallest=4, seed=3)
    true = np.repeat(np.arange(8), 500)
    for cluster in range(labels.max() + 1):  # no cluster has vectors of two planted ones
        assert len(set(true[labels == cluster].tolist())) == 1


@pytest.mark.parametrize("smallest", [1, 8, 40])
def test_no_cluster_is_smaller_than_a_run(smallest: int) -> None:
    vectors = np.concatenate([planted(10, 7, 0.3, seed=1), planted(1, 200, 0.3, seed=2)])
    labels = cluster_vectors(vectors, 30, smallest=smallest, seed=0)
    sizes = np.bincount(labels)
    assert sizes.min() >= smallest and sizes.sum() == len(vectors) and len(sizes) > 1
    assert np.array_equal(labels, cluster_vectors(vectors, 30, smallest=smallest, seed=0))
    assert not np.array_equal(labels, cluster_vectors(vectors, 30, smallest=smallest, seed=1))


@pytest.mark.parametrize("vectors", [np.ones((40, 4)) / 2, np.zeros((40, 4)), np.ones((3, 4)) / 2, np.zeros((0, 4))])
def test_vectors_that_are_all_equal_or_few_are_clustered_too(vectors: np.ndarray) -> None:
    labels = cluster_vectors(vectors.astype(np.float32), 9, smallest=4, seed=0)
    assert len(labels) == len(vectors) and set(labels.tolist()) <= {0}


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.integers(1, 12), st.integers(0, 99))
def test_small_clusters_are_merged_as_a_loop_merges_them(sizes: list[int], smallest: int, seed: int) -> None:
    centers = np.random.default_rng(seed).standard_normal((len(sizes), 3)).astype(np.float32)
    joined, left = merge_small(centers, np.array(sizes), smallest)
    total = np.bincount(joined, weights=sizes, minlength=len(left))
    assert len(left) == joined.max() + 1 and total.sum() == sum(sizes)
    assert len(left) == 1 or total.min() >= smallest
    large = [one for one, size in enumerate(sizes) if size >= smallest]
    if len(large) == len(sizes):
        assert joined.tolist() == list(range(len(sizes)))
    if large:  # a cluster that is large enough absorbs others; it vanishes in none
        assert len({int(joined[one]) for one in large}) == len(large)


def test_a_chain_goes_to_the_nearest_that_is_left() -> None:
    centers = np.array([[0.0], [5.0], [1.0], [-3.0], [2.5]], dtype=np.float32)
    assert chain_of_near(centers).tolist() == [0, 2, 4, 1, 3]
