"""Student's interval against scipy's, Welch's formula by hand, and what it cannot know."""

import math

import numpy as np
import pytest
from scipy import stats

from gemma4vec.statistics.stratified import stratify
from gemma4vec.statistics.student import one_sided_p, t_interval


def test_one_stratum_equals_scipys_t_test() -> None:
    values = np.random.default_rng(1).normal(0.2, 1.0, 40)
    theirs = stats.ttest_1samp(values, 0.0).confidence_interval(0.9)
    ours = t_interval(values, confidence=0.9)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))
    assert (ours.method, ours.n, ours.note) == ("t", 40, "")


def test_two_strata_equal_welch() -> None:
    # The mean of two means is half the difference of x and -y: Welch's interval, halved.
    generator = np.random.default_rng(2)
    x, y = generator.normal(0.5, 1.0, 12), generator.normal(0.1, 3.0, 70)
    theirs = stats.ttest_ind(x, -y, equal_var=False).confidence_interval()
    ours = t_interval(np.concatenate([x, y]), ["x"] * 12 + ["y"] * 70)
    assert (ours.low, ours.high) == pytest.approx((theirs.low / 2, theirs.high / 2))
    assert ours.mean == pytest.approx((x.mean() + y.mean()) / 2)


def test_three_strata_equal_satterthwaites_formula() -> None:
    generator = np.random.default_rng(3)
    groups = [generator.normal(0.0, sd, n) for sd, n in ((1.0, 5), (2.0, 20), (0.5, 60))]
    labels = [name for name, group in zip("abc", groups, strict=True) for _ in group]
    parts = [group.var(ddof=1) / group.size / 9 for group in groups]
    freedom = sum(parts) ** 2 / sum(part**2 / (group.size - 1) for part, group in zip(parts, groups, strict=True))
    half = stats.t.ppf(0.975, freedom) * math.sqrt(sum(parts))
    interval = t_interval(np.concatenate(groups), labels)
    assert (interval.high - interval.low) / 2 == pytest.approx(half)


def test_one_sided_p_equals_scipys() -> None:
    values = np.random.default_rng(4).normal(0.1, 1.0, 25)
    for side in ("greater", "less"):
        theirs = stats.ttest_1samp(values, -0.2, alternative=side).pvalue
        assert one_sided_p(stratify(values), -0.2, side) == pytest.approx(theirs)


def test_what_does_not_vary_has_no_interval_and_no_test() -> None:
    for values, tasks in (
        ([0.2] * 9, None),
        ([0.1] * 20, None),
        ([0.7 - 0.6, 0.4 - 0.3], None),
        ([0.4], None),
        ([0.1, 0.9], ["a", "b"]),
    ):
        interval = t_interval(values, tasks)
        assert interval.method == "degenerate"
        assert interval.low == interval.mean == interval.high
        assert one_sided_p(stratify(values, tasks), -1.0, "greater") == 1.0


def test_tasks_of_one_query_are_confessed() -> None:
    interval = t_interval([0.1, 0.3, 0.2, 0.9], ["a", "a", "a", "b"])
    assert "1 of 2 tasks have one query" in interval.note


@pytest.mark.parametrize("confidence", [0.0, 1.0, float("nan")])
def test_unusable_input_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError):
        t_interval([1.0, 2.0], confidence=confidence)
