"""Intervals over seeds and queries: coverage of the truth, and silence about seeds where there are few."""

import numpy as np
import pytest
from scipy import stats

from gemma4vec.statistics.seeds import run_sd, seed_interval
from gemma4vec.statistics.student import t_interval


def runs_of(generator: np.random.Generator, runs: int, queries: int, run_spread: float) -> np.ndarray:
    """Scores with true mean 0.5: run, query and residual effects, [runs, queries]."""
    return (
        0.5
        + generator.normal(0.0, run_spread, (runs, 1))
        + generator.normal(0.0, 0.1, queries)
        + generator.normal(0.0, 0.1, (runs, queries))
    )


@pytest.mark.parametrize(("runs", "run_spread"), [(6, 0.0), (6, 0.03), (12, 0.03)])
def test_it_covers_the_recipes_true_mean(runs: int, run_spread: float) -> None:
    trials, covered = 400, 0
    generator = np.random.default_rng(runs)
    for trial in range(trials):
        interval = seed_interval(runs_of(generator, runs, 50, run_spread), resamples=1000, seed=trial)
        covered += interval.low <= 0.5 <= interval.high
    low, high = stats.binom.interval(0.999, trials, 0.95)
    assert low <= covered <= high


def test_difference_of_two_recipes_covers_too() -> None:
    trials, covered = 300, 0
    generator = np.random.default_rng(1)
    for trial in range(trials):
        queries = generator.normal(0.0, 0.3, 40)  # easy and hard queries are the same for both
        a, b = (runs_of(generator, runs, 40, 0.02) + queries for runs in (6, 9))
        interval = seed_interval(a, b, resamples=1000, seed=trial)
        covered += interval.low <= 0.0 <= interval.high
    low, high = stats.binom.interval(0.999, trials, 0.95)
    assert low <= covered <= high


def test_fewer_than_six_runs_speak_only_of_themselves() -> None:
    scores = runs_of(np.random.default_rng(2), 5, 200, 0.1)
    interval = seed_interval(scores)
    assert not interval.over_seeds
    assert "speaks only of these runs" in interval.statement
    # The runs are fixed: it is an interval of the queries' means.
    of_queries = t_interval(scores.mean(axis=0))
    assert (interval.low, interval.high) == pytest.approx((of_queries.low, of_queries.high), abs=0.002)


def test_six_of_one_and_five_of_the_other_are_too_few() -> None:
    generator = np.random.default_rng(3)
    a, b = runs_of(generator, 6, 30, 0.05), runs_of(generator, 5, 30, 0.05)
    assert not seed_interval(a, b).over_seeds
    found = seed_interval(a, a)
    assert found.over_seeds
    assert "speaks of the recipe" in found.statement


def test_seeds_that_vary_widen_the_interval() -> None:
    scores = runs_of(np.random.default_rng(4), 8, 100, 0.1)
    over_seeds = seed_interval(scores)
    of_queries = t_interval(scores.mean(axis=0))
    assert over_seeds.high - over_seeds.low > 1.5 * (of_queries.high - of_queries.low)


def test_without_residuals_and_with_equal_queries_it_is_the_t_interval_of_the_run_means() -> None:
    means = np.random.default_rng(5).normal(0.5, 0.05, 30)
    interval = seed_interval(np.repeat(means[:, None], 20, axis=1), resamples=50_000)
    expected = t_interval(means)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=0.002)
    assert interval.run_sds[0] == pytest.approx(np.std(means, ddof=1))


def test_tasks_count_the_same() -> None:
    scores = np.tile(np.r_[np.full(90, 0.2), np.full(10, 0.8)], (6, 1))
    interval = seed_interval(scores, strata=["large"] * 90 + ["small"] * 10)
    assert interval.mean == pytest.approx(0.5)
    assert interval.low == interval.high == interval.mean


def test_the_seed_decides() -> None:
    scores = runs_of(np.random.default_rng(6), 6, 30, 0.05)
    assert seed_interval(scores, seed=1) == seed_interval(scores, seed=1)
    assert seed_interval(scores, seed=1) != seed_interval(scores, seed=2)


def test_one_run() -> None:
    interval = seed_interval(runs_of(np.random.default_rng(7), 1, 60, 0.1))
    assert interval.run_sds == (0.0,)
    assert interval.statement.startswith("1 run: with fewer than 6 seeds")
    assert run_sd([0.3]) == 0.0


def test_without_residuals_and_with_equal_queries_p_is_welchs() -> None:
    generator = np.random.default_rng(8)
    a, b = generator.normal(0.52, 0.02, 6), generator.normal(0.5, 0.06, 9)
    found = seed_interval(*(np.repeat(means[:, None], 20, axis=1) for means in (a, b)))
    welch = stats.ttest_ind(a, b, equal_var=False)
    assert (found.p, found.uncertainty.freedoms[1]) == (pytest.approx(welch.pvalue), pytest.approx(welch.df))
    assert found.uncertainty.error == pytest.approx((a.mean() - b.mean()) / welch.statistic)
    paired = seed_interval(np.repeat((a - b[:6])[:, None], 20, axis=1))
    alone = stats.ttest_1samp(a - b[:6], 0.0)
    assert (paired.p, paired.uncertainty.freedoms[1]) == (pytest.approx(alone.pvalue), 5.0)


def test_without_a_seed_effect_error_and_p_are_those_of_the_queries() -> None:
    row = np.random.default_rng(9).normal(0.02, 0.1, 40)
    found = seed_interval(np.tile(row, (6, 1)))
    alone = stats.ttest_1samp(row, 0.0)
    assert found.p == pytest.approx(alone.pvalue)
    assert found.uncertainty.error == pytest.approx(row.std(ddof=1) / np.sqrt(40))
    still = seed_interval(np.full((6, 20), 0.1))  # nothing varies: no certainty comes out of that
    assert (still.p, still.uncertainty.error) == (1.0, 0.0)


def test_chosen_runs_speak_only_of_themselves_however_many() -> None:
    scores = runs_of(np.random.default_rng(10), 8, 50, 0.05)
    chosen = seed_interval(scores, no_sample="2 other runs exist")
    assert not chosen.over_seeds and chosen.statement.endswith("not of the recipe, since 2 other runs exist")
    assert chosen.uncertainty.error < seed_interval(scores).uncertainty.error
    assert chosen.uncertainty.error == pytest.approx(scores.mean(axis=0).std(ddof=1) / np.sqrt(50))


def test_tasks_of_one_query_are_named() -> None:
    scores = runs_of(np.random.default_rng(11), 6, 20, 0.05)
    assert seed_interval(scores, strata=["a"] * 19 + ["b"]).note.startswith("1 of 2 tasks have one query")
    assert seed_interval(scores, strata=["a"] * 10 + ["b"] * 10).note == ""


def test_unusable_input_is_refused() -> None:
    good = np.ones((2, 3))
    for bad in (np.ones(3), np.ones((0, 3)), np.full((2, 3), np.nan), np.array([[1.0, 2.0], [1.0, np.nan]])):
        with pytest.raises(ValueError):
            seed_interval(bad)
    for keywords in ({"scores_b_RN": np.ones((2, 4))}, {"confidence": 1.0}, {"resamples": 10}, {"strata": ["a"]}):
        with pytest.raises(ValueError):
            seed_interval(good, **keywords)
