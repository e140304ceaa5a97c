"""The judgment of a claim: its parts against scipy and enumeration, and every way to fail."""

import itertools

import numpy as np
import pytest
from scipy import stats

from gemma4vec.inspection.remedy.judge import (
    REFUTED,
    UNDETERMINED,
    VERIFIED,
    detectable_effect,
    judge_claim,
)

INSIDE = np.arange(200) < 80


def gains(inside: float, outside: float, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(0.0, 0.1, len(INSIDE))
    for side in (INSIDE, ~INSIDE):
        drawn[side] -= drawn[side].mean()
    return drawn + np.where(INSIDE, inside, outside)


def test_figures_agree_with_scipy_and_enumeration() -> None:
    values = np.random.default_rng(1).normal(0.05, 0.1, 22)
    mask = np.arange(22) < 10
    found = judge_claim(values, mask, 0.02, 0.1, family=3)
    signs = np.array(list(itertools.product((-1.0, 1.0), repeat=10)))
    p = float(np.mean(np.abs(signs @ values[:10]) >= abs(values[:10].sum()) - 1e-12))
    limits = stats.ttest_1samp(values[:10], 0.0).confidence_interval()
    assert found.inside.p == pytest.approx(p) and found.p_family == pytest.approx(min(1.0, 3 * p))
    assert found.inside.low == pytest.approx(limits.low) and found.inside.high == pytest.approx(limits.high)
    elsewhere = stats.ttest_1samp(values[10:], -0.1, alternative="greater").pvalue
    assert found.elsewhere == pytest.approx(elsewhere)


def test_a_gain_without_a_loss_is_verified() -> None:
    found = judge_claim(gains(0.1, 0.02), INSIDE, 0.05, 0.02, over_control_N=gains(0.08, 0.0, 1))
    assert found.verdict == VERIFIED and not found.reasons and found.over_control is not None


@pytest.mark.parametrize(
    ("inside", "outside", "control", "family", "verdict", "reason"),
    [
        (0.0, 0.0, None, 1, REFUTED, "a gain of 0.05 is excluded"),
        (0.1, -0.1, None, 1, REFUTED, "the rest is worse beyond the margin"),
        (0.1, -0.01, None, 1, UNDETERMINED, "not shown that the rest loses less than 0.02"),
        (0.1, 0.02, 0.0, 1, UNDETERMINED, "no more than the control arm gains"),
        (0.1, 0.02, None, 10**6, UNDETERMINED, "no gain on the slice that is more than luck"),
        (0.04, 0.02, None, 1, UNDETERMINED, "the gain is below the claimed 0.05"),
    ],
)
def test_every_part_must_hold(
    inside: float, outside: float, control: float | None, family: int, verdict: str, reason: str
) -> None:
    over = None if control is None else gains(control, 0.0, 4)
    found = judge_claim(gains(inside, outside), INSIDE, 0.05, 0.02, over_control_N=over, family=family)
    assert found.verdict == verdict and any(reason in one for one in found.reasons)


def test_a_remedy_that_does_nothing_is_seldom_verified() -> None:
    """Random signs of real-looking differences: at most 5%, and with a control arm less."""
    generator = np.random.default_rng(5)
    values = np.where(generator.random(200) < 0.6, 0.0, generator.normal(0.0, 0.3, 200))
    words = [
        judge_claim(values * generator.choice([-1.0, 1.0], 200), INSIDE, 0.01, 0.05, flips=299, seed=deal).verdict
        for deal in range(300)
    ]
    assert words.count(VERIFIED) <= 0.05 * 300


def test_queries_that_do_not_differ() -> None:
    found = judge_claim(np.zeros(200), INSIDE, 0.05, 0.02)
    assert found.verdict == REFUTED and found.inside.low is None and found.inside.p == 1.0
    assert judge_claim(np.zeros(200), INSIDE, 0.03, 0.02).verdict == UNDETERMINED  # 80 of 80 leave 3.7% open
    everywhere = judge_claim(gains(0.2, 0.2), np.ones(200, dtype=bool), 0.05, 0.02)
    assert everywhere.verdict == VERIFIED and everywhere.outside is None
    with pytest.raises(ValueError, match="no query is in the slice"):
        judge_claim(np.zeros(3), np.zeros(3, dtype=bool), 0.05, 0.02)


def test_detectable_effect_is_that_of_the_t_test() -> None:
    values = gains(0.0, 0.0)[:60]
    found = detectable_effect(values, 60, 1)
    reached = stats.norm.sf(1.96 - found / (values.std(ddof=1) / np.sqrt(60)))
    assert reached == pytest.approx(0.8, abs=0.02)
    assert detectable_effect(values, 60, 5) > found > detectable_effect(values, 240, 1)
    assert detectable_effect(values[:1], 60, 1) == float("inf") == detectable_effect(values, 1, 1)
