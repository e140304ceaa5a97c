"""Corrections against scipy, against their step-wise definitions, and against their promises."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gemma4vec.statistics.multiplicity import adjust, benjamini_hochberg, decision_levels, holm

p_values = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12)


def holm_rejects(p: list[float], family: int, alpha: float) -> list[bool]:
    """Holm's own words: from the smallest up, reject while p <= alpha / (those left); stop at the first that is not."""
    rejected, left = [False] * len(p), family
    for index in sorted(range(len(p)), key=lambda i: p[i]):
        if p[index] > alpha / left:
            break
        rejected[index] = True
        left -= 1
    return rejected


def hochberg_rejects(p: list[float], family: int, alpha: float) -> list[bool]:
    """Benjamini & Hochberg's own words: the largest k with p_(k) <= k / m alpha; reject the k smallest."""
    ranked = sorted(p)
    k = max((k for k in range(1, len(p) + 1) if ranked[k - 1] <= k / family * alpha), default=0)
    return [k > 0 and value <= ranked[k - 1] for value in p]


@given(p_values, st.integers(0, 30), st.sampled_from([0.01, 0.05, 0.2]))
def test_adjusted_p_under_alpha_is_what_the_procedures_reject(p: list[float], unseen: int, alpha: float) -> None:
    family = len(p) + unseen
    # On the boundary itself the two forms differ by rounding.
    if any(abs(value * k - alpha * j) < 1e-9 for value in p for k in range(family + 1) for j in range(1, len(p) + 1)):
        return
    assert (holm(p, family) <= alpha).tolist() == holm_rejects(p, family, alpha)
    assert (benjamini_hochberg(p, family) <= alpha).tolist() == hochberg_rejects(p, family, alpha)


@given(p_values, st.integers(0, 30))
def test_benjamini_hochberg_equals_scipys_with_ones_for_the_unseen(p: list[float], unseen: int) -> None:
    theirs = stats.false_discovery_control([*p, *[1.0] * unseen])[: len(p)]
    assert benjamini_hochberg(p, len(p) + unseen) == pytest.approx(theirs, abs=1e-12)


@given(p_values, st.integers(0, 30))
def test_unseen_comparisons_count_as_ones_for_holm_too(p: list[float], unseen: int) -> None:
    assert holm(p, len(p) + unseen) == pytest.approx(holm([*p, *[1.0] * unseen])[: len(p)], abs=1e-12)


def test_one_p_of_a_family_is_bonferroni() -> None:
    assert holm([0.004], 10).tolist() == pytest.approx([0.04])
    assert benjamini_hochberg([0.004], 10).tolist() == pytest.approx([0.04])
    assert holm([0.4], 10).tolist() == [1.0]


def test_a_worked_example() -> None:
    # 4 x .005; 3 x .01; 2 x .03; then not below what came before
    assert holm([0.03, 0.005, 0.04, 0.01]).tolist() == pytest.approx([0.06, 0.02, 0.06, 0.03])


def test_the_family_is_stored() -> None:
    first, second = adjust([0.01, 0.2], "holm", 5)
    assert (first.p, first.adjusted, first.family, first.correction) == (0.01, pytest.approx(0.05), 5, "holm")
    assert second.adjusted == pytest.approx(0.8)
    assert adjust([0.03], "none")[0].adjusted == 0.03
    assert adjust([0.01, 0.02], "benjamini-hochberg")[0].adjusted == pytest.approx(0.02)


def test_false_claims_are_as_rare_as_promised() -> None:
    generator = np.random.default_rng(1)
    trials, tests, real = 2000, 20, 5
    shift = np.r_[np.full(real, 3.0), np.zeros(tests - real)]
    p = 2 * stats.norm.sf(np.abs(generator.normal(shift, 1.0, (trials, tests))))
    by_holm = np.array([holm(row)[real:].min() <= 0.05 for row in p])
    found = np.array([benjamini_hochberg(row) <= 0.05 for row in p])
    false_share = found[:, real:].sum(axis=1) / np.maximum(found.sum(axis=1), 1)
    assert by_holm.mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / trials)
    # Benjamini & Hochberg: at most alpha times the share of true nulls, here .0375, and close to it.
    assert false_share.mean() == pytest.approx(0.05 * (tests - real) / tests, abs=0.008)


def test_unusable_input_is_refused() -> None:
    for correct in (holm, benjamini_hochberg):
        for bad in ([1.2], [-0.1], [float("nan")], [[0.1]]):
            with pytest.raises(ValueError):
                correct(bad)
        with pytest.raises(ValueError):
            correct([0.1, 0.2], 1)
    with pytest.raises(ValueError):
        adjust([0.1], "none", 2)


def test_the_levels_are_where_the_corrections_decide() -> None:
    for correction in ("holm", "benjamini-hochberg"):
        levels = decision_levels(3, correction, 10)
        for place, level in enumerate(levels):
            # With every smaller p at 0, the p at this place decides alone.
            for step, found in ((-1e-9, True), (1e-9, False)):
                p = np.r_[np.zeros(place), level + step, np.ones(2 - place)]
                assert (adjust(p, correction, 10)[place].adjusted < 0.05) == found
    with pytest.raises(ValueError):
        decision_levels(3, "holm", 2)
