"""The sign-flip test against scipy, against brute force, and against its promise: 5% false alarms."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gemma4vec.statistics.paired import sign_flip_test, smallest_p


def brute_force_p(differences: list[float]) -> float:
    """Two-sided p over all sign patterns, zeros included, in exact rational arithmetic of integers."""
    whole = [round(value * 2**20) for value in differences]
    sums = [
        abs(sum(s * v for s, v in zip(signs, whole, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(whole))
    ]
    return sum(value >= abs(sum(whole)) for value in sums) / len(sums)


@given(st.lists(st.integers(-8, 8).map(lambda value: value / 8), min_size=1, max_size=9))
@settings(deadline=None, max_examples=60)
def test_exact_p_is_the_share_of_all_sign_patterns_also_with_zeros_and_ties(differences: list[float]) -> None:
    result = sign_flip_test(differences)
    assert result.exact
    assert result.p == pytest.approx(brute_force_p(differences), abs=1e-12)


def test_exact_p_equals_scipys() -> None:
    differences = np.random.default_rng(1).normal(0.3, 1.0, 12)
    theirs = stats.permutation_test(
        (differences, np.zeros(12)), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip_test(differences).p == pytest.approx(theirs.pvalue, abs=1e-12)


def test_random_flips_come_close_to_the_t_test_on_normal_data() -> None:
    differences = np.random.default_rng(2).normal(0.15, 1.0, 200)
    result = sign_flip_test(differences, flips=50_000)
    assert not result.exact
    assert result.p == pytest.approx(stats.ttest_1samp(differences, 0.0).pvalue, abs=0.006)


def test_rounding_does_not_break_ties() -> None:
    # 0.1 + 0.2 - 0.3 is not zero in floating point: every pattern ties with its mirror image, and two more with it.
    assert sign_flip_test([0.1, 0.2, -0.3]).p == 1.0
    assert sign_flip_test([0.1, 0.2, 0.3]).p == pytest.approx(2 / 8)


def test_zeros_do_not_change_p_but_do_change_the_mean() -> None:
    differences = np.random.default_rng(3).normal(0.4, 1.0, 40)
    padded = np.concatenate([differences, np.zeros(60)])
    without, with_zeros = sign_flip_test(differences, seed=5), sign_flip_test(padded, seed=5)
    assert with_zeros.p == without.p
    assert with_zeros.mean == pytest.approx(without.mean * 0.4)
    assert (with_zeros.n, with_zeros.nonzero) == (100, 40)


def test_p_is_never_zero_and_one_when_nothing_differs() -> None:
    assert sign_flip_test(np.ones(100), flips=999).p == pytest.approx(1 / 1000)
    assert sign_flip_test(np.zeros(100)).p == 1.0


def test_the_seed_decides_and_swapping_the_sides_changes_nothing() -> None:
    differences = np.random.default_rng(4).normal(0.1, 1.0, 50)
    first = sign_flip_test(differences, seed=7)
    assert first == sign_flip_test(differences, seed=7)
    assert first.p != sign_flip_test(differences, seed=8).p
    assert first.p == sign_flip_test(-differences, seed=7).p


def test_strata_count_the_same_however_large_they_are() -> None:
    differences = [1.0, 1.0, 1.0, 1.0, -1.0]
    tasks = ["large"] * 4 + ["small"]
    result = sign_flip_test(differences, tasks)
    assert result.mean == pytest.approx(0.0)
    # |(s1 + s2 + s3 + s4) / 8 + s5 / 2| >= 0 always
    assert result.p == 1.0
    weighted = [1 / 8 * value for value in differences[:4]] + [1 / 2 * differences[4] * -1]
    assert sign_flip_test([1.0] * 5, tasks).p == pytest.approx(brute_force_p(weighted))


def test_false_alarms_stay_near_five_percent() -> None:
    generator = np.random.default_rng(6)
    trials = 400
    alarms = 0
    for trial in range(trials):
        # Differences of two per-query scores of the same distribution: many zeros, many equal values.
        a, b = (generator.choice([0.0, 0.0, 0.39, 0.5, 0.63, 1.0], 50) for _ in range(2))
        alarms += sign_flip_test(a - b, flips=499, seed=trial).p <= 0.05
    low, high = stats.binom.interval(0.999, trials, 0.05)
    assert low <= alarms <= high


def test_the_smallest_reachable_p() -> None:
    assert [smallest_p(pairs) for pairs in (0, 1, 5, 6)] == [1.0, 1.0, 2 / 32, 2 / 64]
    assert sign_flip_test(np.ones(5)).p == smallest_p(5)
    assert smallest_p(2000) == 0.0  # below the smallest float: no overflow on the way


@pytest.mark.parametrize("bad", [[], [float("nan")], [[1.0, 2.0]]])
def test_unusable_input_is_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError):
        sign_flip_test(bad)
    with pytest.raises(ValueError):
        sign_flip_test([1.0], ["a", "b"])
    with pytest.raises(ValueError):
        sign_flip_test([1.0], flips=0)


def near(level: float) -> np.ndarray:
    """40 differences whose t-test has this p."""
    values = np.random.default_rng(12).normal(size=40)
    t = stats.t.isf(level / 2.0, 39)
    return (values - values.mean()) / values.std(ddof=1) + t / np.sqrt(40)


def test_a_p_near_the_level_that_decides_gets_more_flips() -> None:
    open_question, clear = near(0.05), near(0.3)
    assert sign_flip_test(open_question).flips == 1 + 21 * 10_000
    assert sign_flip_test(open_question, levels=()).flips == 1 + 10_000
    assert sign_flip_test(clear).flips == 1 + 10_000
    # What decides in a family of 20 is .0025: there .05 is clear.
    assert sign_flip_test(open_question, levels=[0.05 / 20]).flips == 1 + 10_000
    assert sign_flip_test(near(0.0026), levels=[0.05 / 20]).flips == 1 + 21 * 10_000


def test_more_flips_make_the_error_smaller() -> None:
    differences = near(0.05)
    spread = [np.std([sign_flip_test(differences, flips=500, seed=seed, levels=levels).p for seed in range(40)])
              for levels in ((), (0.05,))]  # fmt: skip
    assert spread[1] < 0.5 * spread[0]
