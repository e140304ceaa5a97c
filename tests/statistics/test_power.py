"""The smallest detectable difference against simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from gemma4vec.statistics.power import smallest_detectable_difference


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
