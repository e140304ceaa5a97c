"""The gap of one slice and the ratio of two rates, against scipy."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.stats import contingency

from gemma4vec.statistics.slices.gap import slice_gap
from gemma4vec.statistics.slices.lift import lift, rate


def test_interval_is_welchs() -> None:
    generator = np.random.default_rng(1)
    values_N, mask_N = np.r_[generator.normal(0, 1, 15), generator.normal(1, 3, 50)], np.arange(65) < 15
    found = slice_gap(values_N, mask_N)
    theirs = stats.ttest_ind(values_N[mask_N], values_N[~mask_N], equal_var=False)
    interval = theirs.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    one_sided = stats.ttest_ind(values_N[mask_N], values_N[~mask_N], equal_var=False, alternative="less").pvalue
    assert found.p == pytest.approx(one_sided, abs=0.02)
    assert slice_gap(values_N, mask_N, side="higher").p == pytest.approx(1 - one_sided, abs=0.02)


def test_p_is_right_under_the_null_and_detectable_is_found_four_times_in_five() -> None:
    generator = np.random.default_rng(0)
    mask_N = np.arange(60) < 20
    null = [slice_gap(generator.normal(size=60), mask_N, permutations=199).p for _ in range(300)]
    assert 0.025 <= np.mean(np.array(null) <= 0.05) <= 0.08
    effect = slice_gap(generator.normal(size=6000), np.arange(6000) < 2000, permutations=1).detectable * 10
    shifted = [slice_gap(generator.normal(size=60) - effect * mask_N, mask_N, permutations=199) for _ in range(300)]
    assert 0.72 <= np.mean([one.p <= 0.05 for one in shifted]) <= 0.88


def test_edges() -> None:
    single = slice_gap([1.0, 2.0, 3.0], [True, False, False])
    assert math.isinf(single.high) and math.isinf(single.detectable)
    equal = slice_gap(np.full(9, 0.3), np.arange(9) < 3)
    assert (equal.gap, equal.p, equal.detectable) == (0.0, 1.0, 0.0)
    with pytest.raises(ValueError):
        slice_gap([1.0, 2.0], [True, True])


@pytest.mark.parametrize(("hits", "n"), [(0, 12), (3, 17), (9, 9), (50, 400)])
def test_rate_has_wilsons_interval(hits: int, n: int) -> None:
    found, theirs = rate(hits, n), stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_ratio_is_scipys_relative_risk() -> None:
    found, theirs = lift(15, 80, 9, 120), contingency.relative_risk(15, 80, 9, 120)
    interval = theirs.confidence_interval(0.95)
    assert found.ratio == pytest.approx(theirs.relative_risk)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_zeros_have_no_infinite_ratio_and_empty_groups_none() -> None:
    none_of_successes = lift(8, 20, 0, 30)
    assert none_of_successes.ratio is None
    assert none_of_successes.low is not None and none_of_successes.low > 1.0
    assert lift(0, 20, 4, 30).ratio == 0.0
    assert lift(0, 0, 4, 30).low is None
    with pytest.raises(ValueError):
        lift(5, 4, 0, 3)
