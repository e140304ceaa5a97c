"""Max-T against all orders of six queries counted in plain Python, and against its promise under noise."""

import inspect
import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from gemma4vec.statistics.slices.max_t import SliceTest, max_t

VALUES = [0.1, -0.4, 0.3, 0.25, -0.35, 0.0]
SLICES = [[1, 4], [0, 1, 2], [5], [1, 4, 5]]


def masks(slices: list[list[int]], size: int) -> np.ndarray:
    return np.array([[query in one for query in range(size)] for one in slices])


def t_lower(values: list[float], inside: list[int]) -> float:
    """Minus the standardized sum of a slice, by hand."""
    n, size = len(inside), len(values)
    mean = sum(values) / size
    variance = sum((value - mean) ** 2 for value in values) / (size - 1)
    return -sum(values[q] - mean for q in inside) / math.sqrt(variance * n * (size - n) / size)


def brute_force(step_down: bool) -> tuple[list[float], list[float]]:
    observed = [t_lower(VALUES, one) for one in SLICES]
    deals = [[t_lower(list(order), one) for one in SLICES] for order in itertools.permutations(VALUES)]
    single = [sum(deal[s] >= observed[s] - 1e-9 for deal in deals) / len(deals) for s in range(len(SLICES))]
    if not step_down:
        joint = [sum(max(deal) >= observed[s] - 1e-9 for deal in deals) / len(deals) for s in range(len(SLICES))]
        return single, joint
    order = sorted(range(len(SLICES)), key=lambda s: -observed[s])
    joint, before = [0.0] * len(SLICES), 0.0
    for place, s in enumerate(order):
        rest = order[place:]
        hits = sum(max(deal[r] for r in rest) >= observed[s] - 1e-9 for deal in deals)
        before = joint[s] = max(before, hits / len(deals))
    return single, joint


@pytest.mark.parametrize("step_down", [False, True])
def test_p_of_six_queries_is_the_share_of_all_orders(step_down: bool) -> None:
    single, joint = brute_force(step_down)
    found = max_t(VALUES, masks(SLICES, 6), step_down=step_down)
    assert [one.p for one in found] == pytest.approx(single, abs=1e-12)
    assert [one.p_max_t for one in found] == pytest.approx(joint, abs=1e-12)
    assert found[0].gap == pytest.approx(-0.375 - 0.1625)


def test_step_down_never_loses() -> None:
    plain, stepped = max_t(VALUES, masks(SLICES, 6)), max_t(VALUES, masks(SLICES, 6), step_down=True)
    assert all(one.p_max_t <= other.p_max_t for one, other in zip(stepped, plain, strict=True))
    assert any(one.p_max_t < other.p_max_t for one, other in zip(stepped, plain, strict=True))


def test_one_slice_agrees_with_scipy() -> None:
    generator = np.random.default_rng(3)
    values_N, mask_N = generator.normal(size=40), np.arange(40) < 12
    found = max_t(values_N, mask_N, permutations=9999, side="both")[0]
    named = inspect.signature(stats.permutation_test).parameters
    seed: dict[str, Any] = {"rng" if "rng" in named else "random_state": 1}  # SciPy < 1.15 has no `rng`
    theirs = stats.permutation_test(
        (values_N[mask_N], values_N[~mask_N]), lambda a, b: np.mean(a) - np.mean(b), n_resamples=9999, **seed
    )
    assert found.p == pytest.approx(theirs.pvalue, abs=0.02)
    assert found.p_max_t == found.p


def test_noise_is_seldom_called_a_slice() -> None:
    generator = np.random.default_rng(0)
    masks_SN = generator.random((20, 80)) < 0.3
    smallest = [
        min(one.p_max_t for one in max_t(generator.normal(size=80), masks_SN, permutations=199, seed=seed))
        for seed in range(200)
    ]
    naive = [
        min(one.p for one in max_t(generator.normal(size=80), masks_SN, permutations=199, seed=seed))
        for seed in range(30)
    ]
    assert 0.02 <= np.mean(np.array(smallest) <= 0.05) <= 0.09
    assert np.mean(np.array(naive) <= 0.05) > 0.3  # what the correction is for


@pytest.mark.parametrize(("side", "small"), [("lower", True), ("higher", False), ("both", True)])
def test_sides(side: str, small: bool) -> None:
    values_N = np.r_[np.zeros(20), np.ones(40)] + np.random.default_rng(0).normal(0, 0.1, 60)
    found = max_t(values_N, np.arange(60) < 20, side=side, permutations=400)[0]
    assert (found.p < 0.01) is small and found.gap < -0.9 and found.z < 0


def test_equal_values_prove_nothing() -> None:
    assert max_t(np.full(30, 0.1 + 0.2), np.arange(30) < 9)[0] == SliceTest(
        9, pytest.approx(0.3), pytest.approx(0.3), 0.0, 1.0, 1.0
    )


@pytest.mark.parametrize(
    ("values", "mask"),
    [([], [[]]), ([1.0, math.nan], [[True, False]]), ([1.0, 2.0], [[True, True]]), ([1.0, 2.0], [[True]])],
)
def test_bad_input_is_refused(values: list[float], mask: list[list[bool]]) -> None:
    with pytest.raises(ValueError):
        max_t(values, mask)
