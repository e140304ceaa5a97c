"""Each defense by its formula; all keep the length and unit norm, and rank as the shorter vectors do."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.decomposition import TruncatedSVD

from gemma4vec.inversion.defenses import Defense, all_defenses, int8, principal_directions


@pytest.fixture(scope="module")
def sample() -> NDArray[np.float32]:
    generator = np.random.default_rng(0)
    made = generator.standard_normal((300, 32)) * np.linspace(2, 0.1, 32) + 0.3
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def named(sample: NDArray[np.float32], name: str) -> Defense:
    return next(one for one in all_defenses(sample, (24,)) if one.name == name)


def test_every_defense_gives_unit_vectors_of_the_same_length(sample: NDArray[np.float32]) -> None:
    found = all_defenses(sample, (24, 32, 64))
    names = [one.name for one in found]
    assert names == [
        "none (fp32)", "int8", "binary", "PCA to 16", "PCA to 8", "PCA to 4",
        "prefix of 24", "prefix of 16", "prefix of 8", "prefix of 4",
        "noise .005", "noise .01", "noise .02", "noise .05",
    ]  # fmt: skip
    for one in found:
        vectors = one.apply(sample, np.random.default_rng(1))
        assert vectors.shape == sample.shape and vectors.dtype == np.float32, one.name
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.array_equal(found[0].apply(sample, np.random.default_rng(1)), sample)


def test_binary_and_int8_are_what_stores_keep(sample: NDArray[np.float32]) -> None:
    signs = named(sample, "binary").apply(sample, np.random.default_rng(0))
    assert np.array_equal(signs > 0, sample > sample.mean(axis=0)) and np.allclose(np.abs(signs), 32**-0.5)
    scale = np.abs(sample[0]).max() / 127
    by_hand = np.round(sample[0] / scale) * scale
    np.testing.assert_allclose(int8(sample)[0], by_hand / np.linalg.norm(by_hand), atol=1e-6)
    assert np.array_equal(int8(np.zeros((1, 4), np.float32)), np.zeros((1, 4)))


def test_pca_keeps_the_inner_products_of_the_projected_vectors(sample: NDArray[np.float32]) -> None:
    projected = TruncatedSVD(8, algorithm="arpack").fit_transform(sample)
    projected /= np.linalg.norm(projected, axis=1, keepdims=True)
    found = named(sample, "PCA to 8").apply(sample, np.random.default_rng(0))
    np.testing.assert_allclose(found @ found.T, projected @ projected.T, atol=1e-4)
    directions = principal_directions(sample)
    np.testing.assert_allclose(directions.T @ directions, np.eye(32), atol=1e-5)


def test_a_prefix_is_cut_and_noise_has_its_size(sample: NDArray[np.float32]) -> None:
    cut = named(sample, "prefix of 8").apply(sample, np.random.default_rng(0))
    expected = sample[:, :8] / np.linalg.norm(sample[:, :8], axis=1, keepdims=True)
    assert not cut[:, 8:].any() and np.allclose(cut[:, :8], expected, atol=1e-6)
    noised = named(sample, "noise .05").apply(np.zeros((2000, 32), np.float32) + 1e3, np.random.default_rng(0))
    raw = noised / noised.mean(axis=1, keepdims=True) * 1e3  # back to the length before the division
    assert np.std(raw - 1e3) == pytest.approx(0.05, rel=0.05)
    weaker = named(sample, "noise .01").apply(sample, np.random.default_rng(0))
    assert (weaker * sample).sum(axis=1).mean() == pytest.approx((1 + 32 * 1e-4) ** -0.5, abs=2e-3)
