"""The smallest detectable difference against simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from gemma4vec.statistics.combined_error import CombinedError, single_error
from gemma4vec.statistics.power import (
    detectable_by_error,
    forecast_detectable,
    smallest_detectable,
    smallest_detectable_difference,
)
from gemma4vec.statistics.seeds import seed_interval
from gemma4vec.statistics.student import t_interval


@pytest.mark.parametrize("n", [8, 50])
def test_a_difference_of_that_size_is_found_in_80_percent_of_experiments(n: int) -> None:
    difference = smallest_detectable_difference(0.2, n)
    samples = np.random.default_rng(n).normal(difference, 0.2, size=(20_000, n))
    found = (stats.ttest_1samp(samples, 0.0, axis=1).pvalue < 0.05).mean()
    assert found == pytest.approx(0.8, abs=0.012)


def test_large_samples_reach_the_normal_formula() -> None:
    expected = (1.959964 + 0.841621) * 0.15 / math.sqrt(10_000)
    assert smallest_detectable_difference(0.15, 10_000) == pytest.approx(expected, rel=1e-3)


def test_more_power_or_fewer_queries_need_a_larger_difference() -> None:
    base = smallest_detectable_difference(0.2, 50)
    assert smallest_detectable_difference(0.2, 50, power=0.999) > base
    assert smallest_detectable_difference(0.2, 49) > base
    assert smallest_detectable_difference(0.4, 50) == pytest.approx(2 * base)


def test_edges() -> None:
    assert smallest_detectable_difference(0.2, 1) == math.inf
    assert smallest_detectable_difference(0.0, 10) == 0.0
    assert math.isfinite(smallest_detectable_difference(0.2, 2, power=0.999))
    for sd, power in ((-0.1, 0.8), (math.nan, 0.8), (0.1, 1.0), (0.1, 0.01)):
        with pytest.raises(ValueError):
            smallest_detectable_difference(sd, 10, power=power)


def test_a_suite_of_one_task_equals_the_plain_formula() -> None:
    d = np.random.default_rng(1).normal(0.0, 0.2, 50)
    plain = smallest_detectable_difference(float(d.std(ddof=1)), 50)
    assert smallest_detectable(d) == pytest.approx(plain)
    # Four times the queries: half of it, and a little less since t comes closer to the normal.
    assert smallest_detectable(d, queries=200) == pytest.approx(
        smallest_detectable_difference(float(d.std(ddof=1)), 200), rel=1e-3
    )


def test_tasks_of_other_sizes_and_spreads_are_found_in_80_percent_of_experiments() -> None:
    generator = np.random.default_rng(2)
    sizes, sds, tasks = (20, 80), (0.4, 0.1), ["a"] * 20 + ["b"] * 80
    # Values with exactly these spreads, so that the forecast knows the truth.
    drawn = [generator.normal(size=n) for n in sizes]
    exact = [sd * (x - x.mean()) / x.std(ddof=1) for x, sd in zip(drawn, sds, strict=True)]
    difference = smallest_detectable(np.concatenate(exact), tasks)
    trials, found = 3000, 0
    for _ in range(trials):
        d = difference + np.concatenate([generator.normal(0.0, sd, n) for n, sd in zip(sizes, sds, strict=True)])
        interval = t_interval(d, tasks)
        found += interval.low > 0.0 or interval.high < 0.0
    assert found / trials == pytest.approx(0.8, abs=0.025)


def test_a_larger_family_needs_a_larger_difference() -> None:
    d = np.random.default_rng(3).normal(0.0, 0.2, 50)
    expected = smallest_detectable_difference(float(d.std(ddof=1)), 50, alpha=0.05 / 20)
    assert smallest_detectable(d, family=20) == pytest.approx(expected)


def test_what_no_spread_can_be_estimated_from() -> None:
    assert smallest_detectable([0.3]) == math.inf
    assert smallest_detectable([0.1, 0.2], ["a", "b"]) == math.inf
    assert smallest_detectable([0.2, 0.2, 0.2]) == 0.0
    assert smallest_detectable(np.arange(50.0), queries=1) == math.inf
    for keywords in ({"queries": 0}, {"family": 0}, {"alpha": 0.9}):
        with pytest.raises(ValueError):
            smallest_detectable([0.1, 0.2], **keywords)


def test_a_forecast_with_seeds_is_found_in_80_percent_of_experiments() -> None:
    generator, queries, runs, sd, spread = np.random.default_rng(4), 100, 8, 0.2, 0.03
    difference = forecast_detectable(sd, queries, runs=runs, run_sd=spread)
    trials, found = 400, 0
    for trial in range(trials):
        of_queries = generator.normal(difference, sd, queries)
        a = of_queries + generator.normal(0.0, spread, (runs, 1))
        b = np.zeros(queries) + generator.normal(0.0, spread, (runs, 1))
        interval = seed_interval(a, b, resamples=1000, seed=trial)
        found += interval.low > 0.0 or interval.high < 0.0
    low, high = stats.binom.interval(0.999, trials, 0.8)
    assert low <= found <= high


def test_seeds_do_not_make_up_for_queries() -> None:
    few, many = (forecast_detectable(0.2, 50, runs=runs, run_sd=0.01) for runs in (3, 300))
    floor = forecast_detectable(0.2, 50)
    assert few > many > floor
    assert many == pytest.approx(floor, rel=0.01)
    assert floor == pytest.approx(smallest_detectable_difference(0.2, 50))


def test_forecast_edges() -> None:
    assert forecast_detectable(0.2, 1) == math.inf
    assert forecast_detectable(0.2, 50, runs=1, run_sd=0.01) == math.inf
    assert forecast_detectable(0.0, 50) == 0.0
    for keywords in ({"runs": 0}, {"run_sd": -1.0}, {"run_sd": math.nan}, {"power": 0.01}):
        with pytest.raises(ValueError):
            forecast_detectable(0.2, 50, **keywords)


def test_from_a_standard_error_it_is_the_same() -> None:
    alone = detectable_by_error(single_error(0.2 / 50**0.5, 49))
    assert alone == pytest.approx(smallest_detectable_difference(0.2, 50))
    few, many = (detectable_by_error(single_error(0.02, freedom)) for freedom in (5, 49))
    mixed = detectable_by_error(CombinedError(0.02, (0.5, 0.5), (49.0, 5.0)))
    assert few > mixed > many and detectable_by_error(single_error(0.02, 5), family=20) > 1.5 * few > 1.8 * many
    assert detectable_by_error(CombinedError(0.0, (), ())) == float("inf")
    with pytest.raises(ValueError):
        detectable_by_error(single_error(0.02, 5), family=0)
