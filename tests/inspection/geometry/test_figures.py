"""Figures of vectors against brute force, scipy, scikit-learn, and clouds whose answer is known."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics.pairwise import cosine_similarity, euclidean_distances

from gemma4vec.inspection.geometry.figures import (
    alignment,
    document_figures,
    effective_rank,
    eigenvalues,
    gaussian_kernel,
    hubness,
    iso_score,
    mean_cosine,
    mean_cosines,
    moments,
    occurrences,
    random_directions,
    two_nn,
    uniformities,
    uniformity,
)

GENERATOR = np.random.default_rng(0)
CLOUD = GENERATOR.normal(0.4, 1.0, (60, 9)) * np.linspace(1, 3, 9)
UNIT = CLOUD / np.linalg.norm(CLOUD, axis=1, keepdims=True)
PAIRS = ~np.eye(60, dtype=bool)


def test_mean_cosine_is_sklearns_over_all_pairs() -> None:
    assert mean_cosine(UNIT) == pytest.approx(cosine_similarity(UNIT)[PAIRS].mean())


def test_weights_are_repetitions_without_pairs_of_one_vector() -> None:
    drawn = [0, 0, 1, 2, 2, 2]
    pairs = [(a, b) for a in drawn for b in drawn if a != b]
    weights = np.bincount(drawn, minlength=60).astype(float)
    assert mean_cosines(UNIT, weights[None])[0] == pytest.approx(np.mean([UNIT[a] @ UNIT[b] for a, b in pairs]))
    slow = math.log(np.mean([math.exp(-2 * ((UNIT[a] - UNIT[b]) ** 2).sum()) for a, b in pairs]))
    assert uniformities(gaussian_kernel(UNIT), weights[None])[0] == pytest.approx(slow)


def test_uniformity_by_distances() -> None:
    kernel = np.exp(-2 * euclidean_distances(UNIT) ** 2)
    assert uniformity(gaussian_kernel(UNIT)) == pytest.approx(math.log(kernel[PAIRS].mean()))


def test_effective_rank_of_known_spectra() -> None:
    assert effective_rank(np.array([3.0, 3.0, 3.0, 0.0])) == pytest.approx(3.0)
    values = eigenvalues(moments(CLOUD).covariance())
    assert effective_rank(values) == pytest.approx(
        math.exp(stats.entropy(np.linalg.svd(CLOUD - CLOUD.mean(0))[1] ** 2))
    )


def test_iso_score_is_the_papers_algorithm() -> None:
    values = np.diag(np.cov(((CLOUD - CLOUD.mean(0)) @ np.linalg.eigh(np.cov(CLOUD.T))[1]).T))
    n = len(values)
    normalized = math.sqrt(n) * values / np.linalg.norm(values)
    defect = np.linalg.norm(normalized - 1.0) / math.sqrt(2 * (n - math.sqrt(n)))
    phi = (n - defect**2 * (n - math.sqrt(n))) ** 2 / n**2
    assert iso_score(moments(CLOUD).covariance()) == pytest.approx((n * phi - 1) / (n - 1))
    assert iso_score(np.eye(7)) == pytest.approx(1.0) and iso_score(np.diag(np.eye(7)[0])) == pytest.approx(0.0)


@pytest.mark.parametrize("dimension", [2, 5])
def test_two_nn_finds_a_known_dimension(dimension: int) -> None:
    flat = np.random.default_rng(1).normal(size=(1500, dimension + 1))
    turned = flat @ np.linalg.qr(np.random.default_rng(2).normal(size=(40, dimension + 1)))[0].T
    sphere = turned / np.linalg.norm(turned, axis=1, keepdims=True)
    value, low, high = two_nn(np.r_[sphere, sphere[:50]])  # repeated vectors are left out
    assert value == pytest.approx(dimension, rel=0.12)
    assert low < value < high and high / low < 1.3


def test_moments_of_a_part_are_the_wholes_minus_the_rests() -> None:
    rest = moments(CLOUD).without(moments(CLOUD[:20]))
    assert np.allclose(rest.covariance(), np.cov(CLOUD[20:].T, bias=True))


def test_two_nn_is_the_papers_fit_over_all_neighbors() -> None:
    distances = euclidean_distances(UNIT) + np.diag(np.full(60, np.inf))
    first, second = np.sort(distances, axis=1)[:, :2].T
    ratios = np.sort(second / first)[:54]
    shares = np.arange(1, 55) / 61
    slope = np.linalg.lstsq(np.log(ratios)[:, None], -np.log(1 - shares), rcond=None)[0][0]
    assert two_nn(UNIT)[0] == pytest.approx(slope, rel=1e-6)
    assert math.isnan(two_nn(np.ones((30, 4)) / 2)[0])


def test_skewness_is_scipys() -> None:
    counts = GENERATOR.poisson(0.5, 300)
    ranks = np.concatenate([np.repeat(np.arange(len(counts)), counts), [-1, -1]])
    found, never = occurrences(ranks, len(counts))
    assert found == pytest.approx(stats.skew(counts)) and never == np.mean(counts == 0) > 0
    assert occurrences(np.arange(4), 4) == (0.0, 0.0) and occurrences(np.array([-1]), 3) == (0.0, 1.0)


def test_hubness_of_random_rankings_is_its_own_baseline_and_a_hub_is_far_from_it() -> None:
    generator = np.random.default_rng(3)
    random_top = np.array([generator.choice(150, 10, replace=False) for _ in range(120)])
    even = hubness(random_top, 150)
    assert even[0].value == pytest.approx(even[0].baseline, abs=0.4)
    assert even[1].value == pytest.approx(even[1].baseline, abs=0.03)
    hub_top = random_top.copy()
    hub_top[:, 0] = 149
    assert hubness(hub_top, 150)[0].low > 3 * even[0].value + 1
    few = hubness(random_top[:4], 5000)  # places are drawn without looking for repetitions
    assert few[1].baseline == pytest.approx(1 - 40 / 5000, abs=0.001)


def test_alignment_is_the_mean_squared_distance() -> None:
    found = alignment(UNIT[:30], UNIT[30:])
    squared = ((UNIT[:30] - UNIT[30:]) ** 2).sum(axis=1)
    interval = stats.t.interval(0.95, 29, squared.mean(), stats.sem(squared))
    assert (found.value, found.low, found.high) == pytest.approx((squared.mean(), *interval))
    assert alignment(UNIT, UNIT).value == 0.0 and alignment(UNIT, UNIT).baseline > 0.3


def test_all_figures_have_intervals_that_hold_their_value_and_name_their_source() -> None:
    figures = document_figures(UNIT)
    assert [one.name for one in figures] == [
        "mean cosine",
        "effective rank",
        "IsoScore",
        "uniformity",
        "intrinsic dimension",
    ]
    for one in figures:
        if one.name != "effective rank":
            assert one.low is not None and one.high is not None and one.low <= one.value <= one.high
        assert one.baseline is not None and one.source and one.baseline_words == "random directions"
        assert "good" not in one.words and "bad" not in one.words
    even = {one.name: one for one in document_figures(random_directions(400, 16, np.random.default_rng(5)))}
    assert even["IsoScore"].value == pytest.approx(even["IsoScore"].baseline, abs=0.03)
    assert even["mean cosine"].low < 0.002 and even["mean cosine"].high > -0.005
