"""Figures of probes against scipy and enumeration."""

import itertools

import numpy as np
import pytest
from scipy import stats

from gemma4vec.inspection.probes.measured import choice, gain, shift

GENERATOR = np.random.default_rng(0)
SCORES = {"first": GENERATOR.normal(0.6, 0.05, 12), "last": GENERATOR.normal(0.5, 0.05, 12)}
SCORES["removed"] = GENERATOR.normal(0.4, 0.05, 12)
CONTROL = {"first": np.full(12, 3.0), "last": np.full(12, 3.0), "removed": np.full(12, 1.0)}


def exact_p(values: np.ndarray) -> float:
    signs = np.array(list(itertools.product((-1.0, 1.0), repeat=len(values))))
    return float(np.mean(np.abs(signs @ values) >= abs(values.sum()) - 1e-12))


def test_a_shift_is_a_share_of_what_the_evidence_is_worth() -> None:
    found = shift("position", "last", SCORES, CONTROL, ("first", "last"), ("first", "removed"), 0)
    gaps, worth = SCORES["first"] - SCORES["last"], SCORES["first"] - SCORES["removed"]
    assert found.value == pytest.approx(gaps.mean() / worth.mean()) and found.control == 0.0
    assert found.p == pytest.approx(exact_p(gaps)) and found.worse == pytest.approx(found.value)
    drawn = np.random.default_rng(0).integers(0, 12, size=(2000, 12))
    expected = np.quantile(gaps[drawn].mean(axis=1) / worth[drawn].mean(axis=1), [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx(tuple(expected))


def test_evidence_that_is_worth_nothing_has_no_share() -> None:
    flat = {name: np.full(12, 0.5) for name in SCORES}
    found = shift("position", "last", flat, CONTROL, ("first", "last"), ("first", "removed"), 0)
    assert np.isnan(found.value) and np.isnan(found.low) and found.p == 1.0


@pytest.mark.parametrize("pairs", [[("first", "last")], [("first", "last"), ("last", "removed")]])
def test_choices_are_exact_binomials_beside_the_chance_line(pairs: list[tuple[str, str]]) -> None:
    found = choice("negation", "both", SCORES, CONTROL, pairs, 0)
    right = np.all([SCORES[one] > SCORES[other] for one, other in pairs], axis=0)
    hits, chance = int(right.sum()), 0.5 ** len(pairs)
    assert found.value == hits / 12 and found.chance == chance
    assert found.p == pytest.approx(stats.binomtest(hits, 12, chance).pvalue)
    low = 0.0 if hits == 0 else stats.beta.ppf(0.025, hits, 12 - hits + 1)
    high = 1.0 if hits == 12 else stats.beta.ppf(0.975, hits + 1, 12 - hits)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.control == 0.0 and found.p_worse == pytest.approx(exact_p(-right.astype(float)))


def test_ties_are_wrong() -> None:
    assert choice("x", "y", CONTROL, SCORES, [("first", "last")], 0).value == 0.0


def test_a_gain_is_paired() -> None:
    one, other = GENERATOR.random(10), GENERATOR.random(10)
    found = gain("prompts", "none", one, other, 0)
    assert found.value == pytest.approx((one - other).mean()) and found.p == pytest.approx(exact_p(one - other))
    assert found.low < found.value < found.high and found.worse == found.value
