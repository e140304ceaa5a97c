"""Likeness of rankings and vectors against definitions written out, and what must not change it."""

import itertools

import numpy as np
import pytest

from gemma4vec.inspection.geometry.likeness import debiased_cka, overlap, rbo

GENERATOR = np.random.default_rng(0)


def test_overlap_is_the_share_of_common_documents() -> None:
    one = np.array([[1, 2, 3], [1, 2, -1], [-1, -1, -1], [1, 2, 3]])
    other = np.array([[3, 2, 9], [1, 5, 6], [-1, -1, -1], [4, 5, 6]])
    assert overlap(one, other).tolist() == [2 / 3, 1 / 3, 1.0, 0.0]


def test_rbo_is_webbers_sum() -> None:
    one, other, p = [1, 2, 3, 4], [2, 1, 5, 4], 0.8
    agreements = [len(set(one[:d]) & set(other[:d])) / d for d in range(1, 5)]
    expected = agreements[3] * p**4 + (1 - p) / p * sum(a * p**d for d, a in enumerate(agreements, start=1))
    assert rbo(np.array([one]), np.array([other]), p)[0] == pytest.approx(expected)
    assert rbo(np.array([one]), np.array([one]))[0] == pytest.approx(1.0)
    assert rbo(np.array([[1, 2]]), np.array([[3, 4]]))[0] == 0.0
    with pytest.raises(ValueError, match="persistence"):
        rbo(np.array([[1]]), np.array([[1]]), 1.0)


def unbiased_hsic(k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741
    """The U-statistic of its definition: means over all tuples of different places (Song et al. 2012)."""
    n = len(k)
    pairs = np.mean([k[i, j] * l[i, j] for i, j in itertools.permutations(range(n), 2)])
    fours = np.mean([k[i, j] * l[q, r] for i, j, q, r in itertools.permutations(range(n), 4)])
    threes = np.mean([k[i, j] * l[i, q] for i, j, q in itertools.permutations(range(n), 3)])
    return float(pairs + fours - 2 * threes)


def test_cka_is_the_u_statistic_over_all_tuples() -> None:
    x, y = GENERATOR.normal(size=(7, 3)), GENERATOR.normal(size=(7, 5))
    grams = [centered @ centered.T for centered in (x - x.mean(0), y - y.mean(0))]
    own = [unbiased_hsic(gram, gram) for gram in grams]
    expected = unbiased_hsic(*grams) / np.sqrt(own[0] * own[1])
    assert debiased_cka(x, y) == pytest.approx(expected)


def test_cka_ignores_rotation_scale_and_shift_and_is_zero_for_noise() -> None:
    x = GENERATOR.normal(size=(50, 6))
    turned = 3.0 * x @ np.linalg.qr(GENERATOR.normal(size=(6, 6)))[0] + 5.0
    assert debiased_cka(x, turned) == pytest.approx(1.0)
    noise = [debiased_cka(GENERATOR.normal(size=(20, 30)), GENERATOR.normal(size=(20, 30))) for _ in range(200)]
    assert abs(np.mean(noise)) < 0.05
    assert debiased_cka(np.ones((5, 2)), x[:5]) == 0.0
    for one, other in ((x[:3], x[:3]), (x[:5], x[:6])):
        with pytest.raises(ValueError, match="at least 4"):
            debiased_cka(one, other)
