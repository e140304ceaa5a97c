"""Slices are found on the open half alone."""

import numpy as np
import pytest

from gemma4vec.inspection.predicates import round_up
from gemma4vec.inspection.slices import find_slices, touched_sentence, touched_slice, with_status

GENERATOR = np.random.default_rng(0)
N = 200
COLUMNS = {
    "digits": [bool(one) for one in GENERATOR.random(N) < 0.25],
    "overlap": GENERATOR.random(N).tolist(),
    "query_words": [float(one) for one in GENERATOR.integers(2, 12, N)],
}
SEALED = np.arange(N) % 2 == 1
VALUES = GENERATOR.normal(0, 0.3, N) - 0.4 * np.array(COLUMNS["digits"])


def test_a_planted_slice_is_first_with_one_rule_an_attribute() -> None:
    found = find_slices(VALUES, COLUMNS, SEALED, "paired", "x")
    assert found[0].rule == "digits is yes" and found[0].p_max_t < 0.01 and found[0].gap < -0.2
    names = [one.rule.split()[0] for one in found]
    assert len(names) == len(set(names)) and all(one.gap < 0 for one in found)
    inside = np.array(COLUMNS["digits"])
    assert (found[0].n, found[0].n_sealed) == (int((inside & ~SEALED).sum()), int((inside & SEALED).sum()))
    assert found[0].inside == pytest.approx(VALUES[inside & ~SEALED].mean())
    assert found[0].tried > 5 and 0.05 < found[0].can_show < 0.4


def test_sealed_values_change_nothing() -> None:
    other = np.where(SEALED, 99.0, VALUES)
    assert find_slices(other, COLUMNS, SEALED, "paired", "x") == find_slices(VALUES, COLUMNS, SEALED, "paired", "x")


def test_equal_values_and_few_queries_have_no_slices() -> None:
    assert find_slices(np.full(N, 0.5), COLUMNS, SEALED, "absolute", "x") == []
    few = {name: column[:19] for name, column in COLUMNS.items()}
    assert find_slices(VALUES[:19], few, SEALED[:19], "absolute", "x") == []


def test_ids_are_of_models_suite_view_and_rule() -> None:
    ids = [
        {one.rule: one.id for one in find_slices(VALUES, COLUMNS, SEALED, view, identity)}
        for view, identity in (("paired", "x"), ("paired", "y"), ("absolute", "x"))
    ]
    assert len({one["digits is yes"] for one in ids}) == 3
    known = find_slices(VALUES, COLUMNS, SEALED, "paired", "x")
    assert with_status(known, {known[0].id: "confirmed"})[0].status == "confirmed"


@pytest.mark.parametrize("value", [1 / 3, 2 / 3, 0.1, 7.0, 12345.6, 1e-7 / 3, 0.0, 0.29999999])
def test_a_cut_keeps_the_case_that_it_came_from(value: float) -> None:
    cut = round_up(value)
    assert value <= cut <= value * 1.002 + 1e-12
    assert float(f"{cut:.6g}") == cut or cut > 1e4


def test_touched_queries_are_shown_though_they_are_no_strong_slice() -> None:
    touched = [row % 10 < 2 for row in range(N)]
    found = touched_slice({"paired": VALUES, "absolute": VALUES + 0.5}, touched, ~SEALED)
    assert found is not None and (found["queries"], found["open"], found["sealed"]) == (40, 20, 20)
    paired, absolute = found["views"]
    assert (paired["view"], absolute["view"]) == ("paired", "absolute")
    open_N, touched_N = ~SEALED, np.array(touched)
    gap = VALUES[open_N & touched_N].mean() - VALUES[open_N & ~touched_N].mean()
    assert paired["gap"] == pytest.approx(gap) == absolute["gap"] and paired["low"] < gap < paired["high"]
    assert "40 of 200 queries" in touched_sentence(found, N, "a minus b")
    sealed_alone = np.where(SEALED, 99.0, VALUES)
    assert touched_slice({"paired": sealed_alone}, touched, ~SEALED) == {**found, "views": [paired]}


def test_nothing_touched_everything_touched_and_nothing_known() -> None:
    assert touched_slice({"paired": VALUES}, [None] * N, ~SEALED) is None
    for touched in (False, True):
        found = touched_slice({"paired": VALUES}, [touched] * N, ~SEALED)
        assert found is not None and found["views"] == [] and found["queries"] == N * touched
        assert ("none of 200" in touched_sentence(found, N, "a")) is not touched
    one = touched_slice({"paired": VALUES}, [row == 0 for row in range(N)], ~SEALED)
    assert one is not None and "no interval of one query" in touched_sentence(one, N, "a")
