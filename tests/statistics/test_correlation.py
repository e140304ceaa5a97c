"""Spearman against scipy, and the comparison of two models on the same pairs against its promises."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gemma4vec.statistics.correlation import spearman, spearman_difference


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5)), min_size=4, max_size=30))
def test_value_equals_scipys_also_with_ties(pairs: list[tuple[int, int]]) -> None:
    x, y = (np.array(side, dtype=float) for side in zip(*pairs, strict=True))
    if np.ptp(x) and np.ptp(y):
        assert spearman(x, y).value == pytest.approx(stats.spearmanr(x, y).statistic)


@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_the_interval_covers_the_true_correlation(rho: float) -> None:
    generator, trials, covered = np.random.default_rng(1), 600, 0
    true = 6 / np.pi * np.arcsin(rho / 2)  # Spearman of a bivariate normal
    for _ in range(trials):
        x = generator.normal(size=100)
        found = spearman(x, rho * x + np.sqrt(1 - rho**2) * generator.normal(size=100))
        covered += found.low <= true <= found.high
    low, high = stats.binom.interval(0.999, trials, 0.95)
    assert low <= covered <= high


def models(generator: np.random.Generator, noise_a: float, noise_b: float, n: int = 80) -> list[np.ndarray]:
    gold = generator.integers(0, 6, n).astype(float)
    return [gold + generator.normal(0.0, noise, n) for noise in (noise_a, noise_b)] + [gold]


def test_a_clear_difference_and_its_direction() -> None:
    a, b, gold = models(np.random.default_rng(2), 0.5, 3.0)
    found = spearman_difference(a, b, gold)
    assert found.low > 0.0
    assert found.p == pytest.approx(1 / 2001)
    assert found.difference == pytest.approx(stats.spearmanr(a, gold).statistic - stats.spearmanr(b, gold).statistic)
    assert spearman_difference(b, a, gold).high < 0.0


def test_equal_models_are_seldom_called_different() -> None:
    generator, trials = np.random.default_rng(3), 400
    alarms, covered = 0, 0
    for trial in range(trials):
        found = spearman_difference(*models(generator, 2.0, 2.0), resamples=199, seed=trial)
        alarms += found.p <= 0.05
        covered += found.low <= 0.0 <= found.high
    low, high = stats.binom.interval(0.999, trials, 0.05)
    assert low <= alarms <= high
    assert covered >= stats.binom.ppf(0.001, trials, 0.94)


def test_the_same_model_twice() -> None:
    a, _, gold = models(np.random.default_rng(4), 1.0, 1.0)
    found = spearman_difference(a, a, gold)
    assert (found.difference, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


def test_a_perfect_correlation_has_no_interval() -> None:
    found = spearman(range(10), range(10))
    assert found.low == found.value == found.high == pytest.approx(1.0)


def test_unusable_input_is_refused() -> None:
    for x, y in (([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]), ([1.0] * 5, range(5)), (range(5), [np.nan, 1, 2, 3, 4])):
        with pytest.raises(ValueError):
            spearman(x, y)
    with pytest.raises(ValueError):
        spearman(range(5), range(5), confidence=1.0)
    with pytest.raises(ValueError):
        spearman_difference(range(5), range(5), range(5), resamples=9)
