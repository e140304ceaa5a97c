"""Rates of error and coverage by simulation: a small version of benchmarks/statistics/statistics_calibration.py."""

import numpy as np
import pytest
from scipy import stats

from gemma4vec.statistics.bootstrap import Interval, mean_interval
from gemma4vec.statistics.multiplicity import adjust
from gemma4vec.statistics.paired import SignFlip, sign_flip_test
from gemma4vec.statistics.seeds import seed_interval
from gemma4vec.statistics.student import t_interval
from gemma4vec.statistics.verdict import decide

N = 50
TASKS = ["a"] * 30 + ["b"] * 20


def drawn(kind: str, trials: int) -> np.ndarray:
    """Differences of null pairs, [trials, 50]."""
    generator = np.random.default_rng(11)
    if kind == "continuous":
        return generator.normal(size=(trials, N))
    if kind == "two tasks":
        return generator.normal(size=(trials, N)) * np.array([3.0 if task == "a" else 1.0 for task in TASKS])
    a, b = (generator.choice([0.0, 0.315, 0.387, 0.5, 0.631, 1.0], (trials, N)) for _ in range(2))
    return np.where(generator.random((trials, N)) < 0.7, 0.0, a - b)


@pytest.mark.parametrize("kind", ["continuous", "two tasks", "mostly zero"])
def test_null_pairs_are_rejected_as_often_as_promised(kind: str) -> None:
    trials, tasks = 1500, TASKS if kind == "two tasks" else None
    p = [sign_flip_test(row, tasks, flips=499, seed=trial).p for trial, row in enumerate(drawn(kind, trials))]
    rejected = sum(value < 0.05 for value in p)
    # p moves in steps of 1/500, so "below .05" is a level of 24/500.
    low, high = stats.binom.interval(0.999, trials, 24 / 500)
    assert rejected <= high
    assert kind == "mostly zero" or rejected >= low


@pytest.mark.parametrize("kind", ["continuous", "two tasks", "mostly zero"])
def test_t_intervals_hold_the_truth_as_often_as_promised(kind: str) -> None:
    trials, tasks = 1500, TASKS if kind == "two tasks" else None
    intervals = [t_interval(row, tasks) for row in drawn(kind, trials)]
    covered = sum(interval.low <= 0.0 <= interval.high for interval in intervals)
    low, high = stats.binom.interval(0.999, trials, 0.95)
    assert low <= covered <= high


def test_why_differences_get_students_interval_and_not_the_bootstraps() -> None:
    rows = drawn("mostly zero", 400)
    student = [t_interval(row) for row in rows]
    bca = [mean_interval(row, resamples=1000, seed=trial) for trial, row in enumerate(rows)]
    rates = [np.mean([one.low <= 0.0 <= one.high for one in intervals]) for intervals in (student, bca)]
    assert rates[0] >= 0.93
    assert rates[1] <= 0.92


@pytest.mark.parametrize("paired", [False, True])
def test_equal_recipes_are_told_apart_as_seldom_as_promised(paired: bool) -> None:
    """Six seeds a side with a standard deviation of .03 between seeds, alone and in a family of 20."""
    generator, trials = np.random.default_rng(12), 1000
    claims = {1: 0, 20: 0}
    for trial in range(trials):
        a, b = (
            generator.normal(0.0, 0.03, (6, 1)) + generator.normal(0.0, 0.1, N) + generator.normal(0.0, 0.1, (6, N))
            for _ in range(2)
        )
        found = seed_interval(*((a - b,) if paired else (a, b)), resamples=200, seed=trial)
        span = Interval(found.mean, found.low, found.high, 0.95, "percentile", N)
        for family in claims:
            (adjusted,) = adjust([found.p], "holm", family)
            test = SignFlip(found.mean, 0.0, N, N, 1, False)
            claims[family] += decide(test, span, seeds=found, adjusted=adjusted).word != "undetermined"
    for family, count in claims.items():
        assert count <= stats.binom.ppf(0.999, trials, 0.05 / family)
    assert claims[1] >= stats.binom.ppf(0.001, trials, 0.025)
