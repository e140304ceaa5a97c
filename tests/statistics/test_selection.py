"""The price of choosing: none where one is clearly best, the expected maximum where all are equal."""

import numpy as np
import pytest

from gemma4vec.statistics.selection import selection_effect


def test_equal_candidates_are_flattered_by_the_expected_maximum() -> None:
    random = np.random.default_rng(0)
    effects, held_out = [], []
    for trial in range(200):
        found = selection_effect(random.normal(0.5, 0.3, (8, 60)), splits=20, seed=trial)
        effects.append(found.effect)
        held_out.append(found.held_out)
    # The expected maximum of 8 standard normals is 1.4236 (David & Nagaraja 2003, table of order statistics).
    assert np.mean(effects) == pytest.approx(1.4236 * 0.3 / np.sqrt(60), rel=0.12)
    assert np.mean(held_out) == pytest.approx(0.5, abs=3 * 0.3 / np.sqrt(60 * 200))


def test_a_clear_winner_costs_nothing() -> None:
    random = np.random.default_rng(1)
    scores_CN = random.uniform(0.0, 0.1, (4, 50))
    scores_CN[2] += 0.5
    found = selection_effect(scores_CN)
    assert (found.best, found.chosen_share[2]) == (2, 1.0)
    assert found.score == pytest.approx(scores_CN[2].mean())
    assert found.effect == pytest.approx(0.0, abs=1e-3)


def test_tasks_count_the_same_and_small_ones_do_no_harm() -> None:
    scores_CN = np.array([[1.0] * 10 + [0.0], [0.4] * 10 + [0.9]])
    assert selection_effect(scores_CN, ["large"] * 10 + ["small"]).best == 1  # (.4 + .9) / 2 > (1 + 0) / 2
    assert selection_effect(scores_CN).best == 0
    alone = selection_effect(scores_CN[:, -2:], ["a", "b"])
    assert 0.0 <= alone.held_out <= 1.0
    assert selection_effect(scores_CN[:1]).effect == pytest.approx(0.0, abs=0.05)


@pytest.mark.parametrize("scores", [[0.1, 0.2], [[0.1], [0.2]], [[np.nan, 0.0]]])
def test_what_cannot_be_chosen_from(scores: list) -> None:
    with pytest.raises(ValueError):
        selection_effect(scores)
