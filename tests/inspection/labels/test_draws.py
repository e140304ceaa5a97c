"""What is known of how pairs were drawn, and the shares of right ones."""

import itertools

import numpy as np
import pytest

from gemma4vec.inspection.labels.draws import LIKELY_FIRST, Draw, parse_draw, random_place, shares

PAIRS = [(f"q{number}", "d") for number in range(40)]
SUITE = "ab" * 16


def in_order(seed: int, suite: str = SUITE) -> list[tuple[str, str]]:
    return sorted(PAIRS, key=lambda pair: random_place(pair, seed, suite))


def test_the_order_is_fixed_by_the_seed_and_the_suite_and_looks_random() -> None:
    assert in_order(0) == in_order(0) and in_order(0) != in_order(1) and in_order(0) != in_order(0, "cd" * 16)
    assert set(in_order(0)) == set(PAIRS)
    places = np.array([[in_order(seed).index(pair) for pair in PAIRS] for seed in range(300)])
    # Each pair's mean place is 19.5 with a standard error of .67; ranks of neighbors are not correlated.
    assert np.abs(places.mean(axis=0) - 19.5).max() < 4 * 0.67
    assert abs(np.corrcoef(places[:, 0], places[:, 1])[0, 1]) < 0.25


def test_each_part_counts_its_own_pairs() -> None:
    order = in_order(3)
    top = PAIRS[:10]
    grades = {pair: int(pair in PAIRS[:8]) for pair in [*top, *order[:12]]}
    draws = {pair: {LIKELY_FIRST} for pair in top}
    for pair in order[:12]:
        draws.setdefault(pair, set()).add(Draw("random", 3))
    found = shares(PAIRS, grades, draws, SUITE)
    right = sum(pair in PAIRS[:8] for pair in order[:12])
    assert found["top"] | {"read": 10, "right": 8, "precision": 0.8, "skipped": 0} == found["top"]
    assert found["top"]["low"] == pytest.approx(0.4902, abs=1e-4)  # Wilson's, computed by hand
    assert found["random"] | {"read": 12, "right": right, "precision": right / 12, "seeds": [3]} == found["random"]
    assert found["other"]["read"] == 0 and found["other"]["precision"] is None


def test_pairs_of_the_sample_that_were_read_before_count_with_their_verdict() -> None:
    """A random queue has unread pairs alone; pairs that were read from the top complete its sample."""
    order = in_order(0)
    grades = {order[0]: 1, order[1]: 0, order[2]: 0, order[5]: 1}
    draws = {order[0]: {LIKELY_FIRST}, order[1]: {Draw("random", 0)}, order[2]: {Draw("random", 0)}}
    found = shares(PAIRS, grades, draws, SUITE)
    assert (found["random"]["read"], found["random"]["right"], found["random"]["skipped"]) == (3, 1, 0)
    assert (found["top"]["read"], found["other"]["read"]) == (1, 1)  # nobody recorded how the sixth was drawn


def test_skipped_pairs_widen_the_interval_as_far_as_they_could() -> None:
    order = in_order(0)
    grades = {order[0]: 1, order[3]: 0}
    found = shares(PAIRS, grades, {pair: {Draw("random", 0)} for pair in grades}, SUITE)["random"]
    assert (found["read"], found["right"], found["skipped"], found["precision"]) == (2, 1, 2, 0.5)

    def complete(*values: int) -> dict[str, float]:
        read = dict(zip(order[:4], values, strict=True))
        return shares(PAIRS, read, {pair: {Draw("random", 0)} for pair in read}, SUITE)["random"]

    every = [complete(1, *rest, 0) for rest in itertools.product((0, 1), repeat=2)]
    assert found["low"] == min(one["low"] for one in every) and found["high"] == max(one["high"] for one in every)


def test_the_random_sample_is_right_on_average_where_the_top_is_not() -> None:
    """8 of 40 flags are right, all at the top; 15 are read in random order after ten from the top."""
    means = []
    for seed in range(200):
        order = in_order(seed)
        truth = {pair: int(number < 8) for number, pair in enumerate(PAIRS)}
        read = [pair for pair in order if pair not in PAIRS[:10]][:15]
        draws = {pair: {LIKELY_FIRST} for pair in PAIRS[:10]} | {pair: {Draw("random", seed)} for pair in read}
        found = shares(PAIRS, {pair: truth[pair] for pair in draws}, draws, SUITE)
        assert found["top"]["precision"] == 0.8 and found["random"]["skipped"] == 0
        means.append(found["random"]["precision"])
    assert np.mean(means) == pytest.approx(0.2, abs=0.02)


def test_all_flags_read_is_the_share_of_all() -> None:
    found = shares(PAIRS, dict.fromkeys(PAIRS, 0) | {PAIRS[0]: 1}, {}, SUITE)
    assert (found["random"]["read"], found["random"]["precision"]) == (40, 1 / 40) and found["other"]["read"] == 0
    assert shares([], {}, {}, SUITE)["random"]["precision"] is None


@pytest.mark.parametrize(
    "value", [3, "random", {}, {"order": "random"}, {"order": "likely", "seed": 1}, {"order": "random", "seed": -1}]
)
def test_a_draw_that_nobody_wrote_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match='"drawn" is'):
        parse_draw(value)
    assert parse_draw(None) is None and parse_draw({"order": "random", "seed": 7}) == Draw("random", 7)
    assert parse_draw(LIKELY_FIRST.as_json()) == LIKELY_FIRST
