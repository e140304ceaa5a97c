"""Kendall's tau-b and sign agreement against scipy and brute force, their intervals, and who may promote."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gemma4vec.statistics.agreement import Agreement, agreement, may_promote

rows = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=12)


@given(rows)
@settings(deadline=None, max_examples=60)
def test_tau_equals_scipys_also_with_ties(pairs: list[tuple[int, int]]) -> None:
    proxy, suite = (np.array(side, dtype=float) for side in zip(*pairs, strict=True))
    theirs = stats.kendalltau(proxy, suite).statistic
    assert agreement(proxy, suite, resamples=100).tau.value == pytest.approx(theirs, nan_ok=True)


@given(rows, st.integers(0, 2))
@settings(deadline=None, max_examples=60)
def test_decisions_and_signs_equal_a_loop_over_pairs(pairs: list[tuple[int, int]], least: int) -> None:
    said = {"yes": 0, "no": 0, "tie": 0}
    for (x, y), (x2, y2) in combinations(pairs, 2):
        if x == x2:
            continue
        gain = (y2 - y) * (1 if x2 > x else -1)
        said["yes" if gain > least else "no" if gain < -least else "tie"] += 1
    proxy, suite = zip(*pairs, strict=True)
    found = agreement(proxy, suite, least_suite=least, resamples=100)
    assert (found.pairs.agreed, found.pairs.denied, found.pairs.tied) == tuple(said.values())
    assert found.pairs.proxy_yes == sum(said.values())
    both = said["yes"] + said["no"]
    assert found.signs.value == pytest.approx(said["yes"] / both if both else math.nan, nan_ok=True)


def test_a_resample_is_tau_b_of_the_drawn_runs() -> None:
    from gemma4vec.statistics.agreement import _resampled_counts, _signs, _tau_b

    generator = np.random.default_rng(1)
    x, y = generator.integers(0, 5, 9).astype(float), generator.normal(size=9)
    counts = _resampled_counts(9, 50, seed=3)
    fast = _tau_b(_signs(x, 0.0), _signs(y, 0.0), counts)
    for weights, tau in zip(counts, fast, strict=True):
        drawn = np.repeat(np.arange(9), weights.astype(int))
        assert tau == pytest.approx(stats.kendalltau(x[drawn], y[drawn]).statistic, nan_ok=True)


@pytest.mark.parametrize(("runs", "rho"), [(8, 0.0), (20, 0.0), (12, 0.8), (20, 0.8)])
def test_the_interval_covers_the_true_tau(runs: int, rho: float) -> None:
    generator, trials, covered = np.random.default_rng(2), 300, 0
    true = 2 / math.pi * math.asin(rho)
    for trial in range(trials):
        x = generator.normal(size=runs)
        y = rho * x + math.sqrt(1 - rho**2) * generator.normal(size=runs)
        tau = agreement(x, y, resamples=500, seed=trial).tau
        covered += tau.low <= true <= tau.high
    assert covered >= stats.binom.ppf(0.001, trials, 0.95)


def test_a_perfect_order_of_few_runs_is_not_certain() -> None:
    six, twenty = (agreement(range(n), range(n)) for n in (6, 20))
    assert (six.tau.value, six.tau.high) == (1.0, 1.0)
    assert 0.0 < six.tau.low < twenty.tau.low < 1.0
    assert six.signs.low == pytest.approx((1 + six.tau.low) / 2)
    opposite = agreement(range(6), range(6), proxy_higher_is_better=False)
    assert (opposite.tau.low, opposite.tau.high) == pytest.approx((-1.0, -six.tau.low))
    assert (opposite.signs.value, opposite.signs.low) == (0.0, 0.0)


def test_a_loss_is_better_when_lower() -> None:
    found = agreement([3.0, 2.0, 1.0], [0.1, 0.2, 0.3], proxy_higher_is_better=False)
    assert found.tau.value == pytest.approx(1.0)


def test_against_the_control() -> None:
    # Run 1 is the control. Proxy yes: runs 0, 2, 3; the suite agrees on 0, denies 2 and sees nothing in 3.
    found = agreement([0.6, 0.5, 0.7, 0.8, 0.1], [0.4, 0.3, 0.2, 0.3, 0.9], control=1)
    decisions = found.against_control
    assert decisions is not None
    assert (decisions.proxy_yes, decisions.agreed, decisions.denied, decisions.tied) == (3, 1, 1, 1)
    assert decisions.false_discovery_rate == pytest.approx(1 / 3)
    assert agreement([1.0, 2.0], [1.0, 2.0]).against_control is None


def test_too_few_runs_and_no_order_are_said() -> None:
    few = agreement([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0])
    assert (few.tau.low, few.tau.high, few.signs.low) == (-1.0, 1.0, 0.0)
    assert "too few" in few.note
    flat = agreement([1.0] * 8, range(8))
    assert math.isnan(flat.tau.value)
    assert math.isnan(flat.pairs.false_discovery_rate)
    assert "no order" in may_promote(flat).reason


def related(runs: int, noise: float, seed: int) -> Agreement:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=runs)
    return agreement(x, x + noise * generator.normal(size=runs))


def test_who_may_promote() -> None:
    good = may_promote(related(20, 0.2, 1))
    assert good.allowed
    assert good.reason.startswith("may promote: Kendall tau")
    weak = may_promote(related(40, 2.0, 2))
    assert not weak.allowed
    assert "under the threshold of 0.5" in weak.reason
    assert not may_promote(related(20, 0.2, 1), least_tau=0.99).allowed
    lucky = may_promote(agreement(range(4), range(4)))
    assert not lucky.allowed
    assert "may be luck" in lucky.reason


def test_unusable_input_is_refused() -> None:
    for proxy, suite in (([1.0], [1.0]), ([1.0, 2.0], [1.0]), ([1.0, math.nan], [1.0, 2.0])):
        with pytest.raises(ValueError):
            agreement(proxy, suite)
    for keywords in ({"confidence": 0.0}, {"resamples": 9}, {"least_suite": -1.0}, {"control": 2}, {"control": -1}):
        with pytest.raises(ValueError):
            agreement([1.0, 2.0], [1.0, 2.0], **keywords)
    with pytest.raises(ValueError):
        may_promote(related(8, 0.1, 1), least_tau=0.0)
