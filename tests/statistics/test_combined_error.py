"""Standard errors of several parts: Student's t where there is one, and the promised rate where there are two."""

import numpy as np
import pytest
from scipy import stats

from gemma4vec.statistics.combined_error import CombinedError, single_error


def test_one_part_is_students_t() -> None:
    one = single_error(0.02, 7)
    assert one.critical(0.025) == pytest.approx(stats.t.isf(0.025, 7))
    for distance in (0.0, 0.001, 0.05, -0.03):
        assert one.tail(distance) == pytest.approx(stats.t.sf(distance / 0.02, 7))
    assert one.p(-0.05) == pytest.approx(2 * stats.t.sf(2.5, 7))
    assert one.freedom_at(0.001) == 7
    equal = CombinedError(0.02, (0.3, 0.7), (7.0, 7.0))
    assert equal.p(0.05) == pytest.approx(one.p(0.05))


@pytest.mark.parametrize("tail", [0.2, 0.025, 1e-6])
def test_tail_and_critical_value_are_inverse(tail: float) -> None:
    two = CombinedError(0.5, (0.6, 0.4), (5.0, 49.0))
    critical = two.critical(tail)
    assert critical**2 == pytest.approx(0.6 * stats.t.isf(tail, 5) ** 2 + 0.4 * stats.t.isf(tail, 49) ** 2)
    assert two.tail(0.5 * critical) == pytest.approx(tail)
    assert stats.t.isf(tail, two.freedom_at(tail)) == pytest.approx(critical)
    assert 5 < two.freedom_at(tail) < 49


def test_nothing_that_varies_proves_nothing() -> None:
    none = CombinedError(0.0, (), ())
    assert (none.p(0.3), none.tail(0.3), none.freedom_at(0.025)) == (1.0, 1.0, 0.0)
    assert single_error(1e-9, 1000).p(1.0) > 0.0


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("level", [0.05, 0.0025])
def test_a_sum_of_two_is_rejected_as_seldom_as_promised(share: float, level: float) -> None:
    """The mean of 6 and the mean of 50 values, added: Satterthwaite's t errs too often at the smaller level."""
    generator, trials = np.random.default_rng(1), 100_000
    variances = np.array([share, 1.0 - share])
    mean_T = generator.normal(size=trials)
    parts = np.stack([generator.chisquare(f, trials) / f * v for f, v in zip((5, 49), variances, strict=True)])
    total_T = parts.sum(axis=0)
    squared_T = (parts[0] * stats.t.isf(level / 2, 5) ** 2 + parts[1] * stats.t.isf(level / 2, 49) ** 2) / total_T
    rejected = int((mean_T**2 / total_T > squared_T).sum())
    assert rejected <= stats.binom.ppf(0.999, trials, 1.02 * level)
    # The same as the class says, on the first ones.
    for place in range(200):
        one = CombinedError(total_T[place] ** 0.5, tuple(parts[:, place] / total_T[place]), (5.0, 49.0))
        assert (one.p(mean_T[place]) < level) == (mean_T[place] ** 2 / total_T[place] > squared_T[place])
