"""The BCa interval against scipy's and against its promise: 95% coverage."""

import numpy as np
import pytest
from scipy import stats

from gemma4vec.statistics.bootstrap import mean_interval


def skewed(n: int, seed: int) -> np.ndarray:
    """Values like per-query differences: many zeros, a few large ones."""
    generator = np.random.default_rng(seed)
    return np.where(generator.random(n) < 0.4, 0.0, generator.exponential(1.0, n))


def test_one_stratum_equals_scipys_bca() -> None:
    values = skewed(60, 1)
    ours = mean_interval(values, resamples=100_000)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=100_000, method="BCa", random_state=np.random.default_rng(9)
    ).confidence_interval
    assert ours.method == "bca"
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.006)


def test_several_strata_equal_scipys_multi_sample_bca() -> None:
    first, second = skewed(25, 2), skewed(70, 3) + 0.5

    def mean_of_means(x: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
        return (x.mean(axis=axis) + y.mean(axis=axis)) / 2

    theirs = stats.bootstrap(
        (first, second), mean_of_means, n_resamples=50_000, method="BCa", random_state=np.random.default_rng(4)
    ).confidence_interval
    tasks = ["first"] * 25 + ["second"] * 70
    ours = mean_interval(np.concatenate([first, second]), tasks, resamples=50_000)
    assert ours.mean == pytest.approx((first.mean() + second.mean()) / 2)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.008)


def test_the_order_of_strata_labels_does_not_matter_to_the_mean() -> None:
    values, tasks = [1.0, 2.0, 3.0, 10.0], ["a", "a", "a", "b"]
    assert mean_interval(values, tasks).mean == pytest.approx((2.0 + 10.0) / 2)
    assert mean_interval(values[::-1], tasks[::-1]).mean == pytest.approx((2.0 + 10.0) / 2)


def test_skewness_moves_the_interval_to_the_right() -> None:
    values = skewed(40, 5)
    interval = mean_interval(values)
    assert interval.high - interval.mean > interval.mean - interval.low


def test_equal_values_have_no_interval_and_it_says_so() -> None:
    interval = mean_interval([0.25] * 30)
    assert (interval.method, interval.low, interval.mean, interval.high) == ("degenerate", 0.25, 0.25, 0.25)
    assert mean_interval([0.1, 0.9], ["a", "b"]).method == "degenerate"
    assert mean_interval([0.3]).method == "degenerate"


def test_an_undefined_correction_falls_back_to_percentiles_and_says_so() -> None:
    # One resample: it lies wholly on one side of the mean.
    interval = mean_interval([0.0, 0.0, 1.0, 5.0], resamples=1)
    assert interval.method == "percentile"
    assert interval.low == interval.high


def test_the_seed_decides() -> None:
    values = skewed(50, 6)
    assert mean_interval(values, seed=1) == mean_interval(values, seed=1)
    assert mean_interval(values, seed=1) != mean_interval(values, seed=2)


def test_memory_blocks_do_not_bias_the_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    values = skewed(50, 7)
    whole = mean_interval(values, resamples=20_000)
    monkeypatch.setattr("gemma4vec.statistics.bootstrap.VALUES_PER_BLOCK", 700)
    in_blocks = mean_interval(values, resamples=20_000)
    assert (in_blocks.low, in_blocks.high) == pytest.approx((whole.low, whole.high), abs=0.02)


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    trials, covered = 300, 0
    for trial in range(trials):
        values = np.random.default_rng(1000 + trial).normal(0.2, 1.0, 50)
        interval = mean_interval(values, resamples=1000, seed=trial)
        covered += interval.low <= 0.2 <= interval.high
    # Bootstrap intervals of 50 values cover a little less than they say: about 94%.
    low, high = stats.binom.interval(0.999, trials, 0.94)
    assert low <= covered <= high


@pytest.mark.parametrize("keywords", [{"confidence": 1.0}, {"confidence": 0.0}, {"resamples": 0}])
def test_unusable_input_is_refused(keywords: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        mean_interval([1.0, 2.0], **keywords)
    with pytest.raises(ValueError):
        mean_interval([])
