"""Non-inferiority and equivalence against scipy's one-sided tests, their intervals, and their promise at the margin."""

import numpy as np
import pytest
from scipy import stats

from gemma4vec.statistics.combined_error import single_error
from gemma4vec.statistics.equivalence import (
    correct_for,
    equivalence_of_estimate,
    equivalence_test,
    non_inferiority_test,
)


def test_p_values_equal_scipys_one_sided_t_tests() -> None:
    d = np.random.default_rng(1).normal(0.01, 0.1, 60)
    above = stats.ttest_1samp(d, -0.03, alternative="greater").pvalue
    below = stats.ttest_1samp(d, 0.03, alternative="less").pvalue
    assert non_inferiority_test(d, 0.03).p == pytest.approx(above)
    assert equivalence_test(d, 0.03).p == pytest.approx(max(above, below))


@pytest.mark.parametrize("seed", range(12))
def test_p_and_interval_say_the_same(seed: int) -> None:
    d = np.random.default_rng(seed).normal(0.0, 0.1, 40)
    tasks = ["a"] * 10 + ["b"] * 30
    no_worse, same = non_inferiority_test(d, 0.03, tasks), equivalence_test(d, 0.03, tasks)
    assert no_worse.shown == (no_worse.interval.low > -0.03)
    assert same.shown == (same.interval.low > -0.03 and same.interval.high < 0.03)
    assert same.interval.confidence == pytest.approx(0.9)


def test_no_significant_difference_is_not_equivalence() -> None:
    d = np.random.default_rng(2).normal(0.0, 0.3, 10)
    assert stats.ttest_1samp(d, 0.0).pvalue > 0.05
    found = equivalence_test(d, 0.02)
    assert not found.shown
    assert found.reason.startswith("not shown that A and B differ by less than 0.02")


def test_better_is_no_worse_but_not_the_same() -> None:
    d = np.random.default_rng(3).normal(0.2, 0.1, 50)
    assert non_inferiority_test(d, 0.02).shown
    assert not equivalence_test(d, 0.02).shown
    assert not non_inferiority_test(-d, 0.02).shown


def test_at_the_margin_it_errs_as_often_as_alpha() -> None:
    generator = np.random.default_rng(4)
    trials = 2000
    shown = sum(non_inferiority_test(generator.normal(-0.05, 0.2, 30), 0.05).shown for _ in range(trials))
    low, high = stats.binom.interval(0.999, trials, 0.05)
    assert low <= shown <= high


def test_where_nothing_varies_there_is_no_test() -> None:
    same = equivalence_test(np.zeros(50), 0.01)
    assert (same.p, same.shown) == (1.0, False)
    # rule of three: 1 - .05^(1/50)
    assert "up to 5.8% of all queries" in same.note
    assert "do not vary" in non_inferiority_test(np.full(20, 0.1), 0.01).note


def test_few_differing_queries_are_confessed() -> None:
    d = np.zeros(200)
    d[:3] = [0.1, -0.2, 0.1]
    found = equivalence_test(d, 0.02)
    assert found.shown
    assert "only 3 of 200 queries differ" in found.note


@pytest.mark.parametrize(("margin", "alpha"), [(0.0, 0.05), (-1.0, 0.05), (float("nan"), 0.05), (0.1, 0.5), (0.1, 0.0)])
def test_unusable_input_is_refused(margin: float, alpha: float) -> None:
    with pytest.raises(ValueError):
        non_inferiority_test([0.1, 0.2], margin, alpha=alpha)


def test_in_a_family_p_is_multiplied() -> None:
    d = np.random.default_rng(5).normal(0.0, 0.1, 60)
    alone = equivalence_test(d - d.mean(), 0.035)
    assert alone.shown and (alone.family, alone.adjusted) == (1, alone.p)
    among = correct_for(40, alone)
    assert (among.family, among.adjusted, among.p) == (40, pytest.approx(40 * alone.p), alone.p)
    assert among.adjusted > 0.05 and not among.shown and among.reason.startswith("not shown")
    assert "corrected for 40 comparisons" in among.reason
    assert correct_for(10**9, alone).adjusted == 1.0
    with pytest.raises(ValueError):
        correct_for(0, alone)


def test_few_degrees_of_freedom_ask_for_more() -> None:
    t = 0.03 / 0.012
    few = equivalence_of_estimate("non-inferiority", 0.0, single_error(0.012, 5), 60, 0.03)
    assert few.p == pytest.approx(stats.t.sf(t, 5.0))
    many = equivalence_of_estimate("non-inferiority", 0.0, single_error(0.012, 59), 60, 0.03)
    assert many.p == pytest.approx(stats.t.sf(t, 59)) and few.p > 2 * many.p
    assert few.interval.low == pytest.approx(-stats.t.ppf(0.95, 5.0) * 0.012)


def test_tasks_of_one_query_show_nothing() -> None:
    d, tasks = np.random.default_rng(6).normal(0.0, 0.001, 41), ["a"] * 40 + ["b"]
    for found in (equivalence_test(d, 0.5, tasks), non_inferiority_test(d, 0.5, tasks)):
        assert (found.p, found.shown) == (1.0, False)
        assert "1 of 2 tasks have one query" in found.note
