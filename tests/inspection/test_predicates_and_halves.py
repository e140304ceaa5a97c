"""Slices as rules, and the halves of a suite's queries."""

import numpy as np
import pytest

from gemma4vec.errors import InputError
from gemma4vec.inspection.predicates import (
    Condition,
    Predicate,
    candidate_slices,
    parse_predicate,
    readable_rule,
    rule_in_words,
)
from gemma4vec.ledger.suite_halves import split_halves

VALUES = {
    "overlap": [0.0, 0.1, 0.2, 0.5, 0.9, None],
    "digits": [True, False, True, False, False, True],
    "question_word": ["why", "none", "none", "how", "why", "why"],
}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("overlap <= 0.2", [1, 1, 1, 0, 0, 0]),
        ("overlap > 0.2", [0, 0, 0, 1, 1, 0]),
        ("digits is yes", [1, 0, 1, 0, 0, 1]),
        ("digits is no", [0, 1, 0, 1, 1, 0]),
        ("question_word is why and digits is yes", [1, 0, 0, 0, 0, 1]),
    ],
)
def test_a_rule_fits_and_reads_back(rule: str, expected: list[int]) -> None:
    parsed = parse_predicate(rule)
    assert str(parsed) == rule
    assert parsed.mask(VALUES).tolist() == [bool(one) for one in expected]
    assert [parsed.fits({name: column[row] for name, column in VALUES.items()}) for row in range(6)] == parsed.mask(
        VALUES
    ).tolist()


@pytest.mark.parametrize(
    ("rule", "short"),
    [
        ("overlap <= 0.2 and digits is no", "overlap <= 0.2 and digits is no"),
        ("topic is 9-token-current-item@1a2b3c4d5e6f", "topic: token, current, item"),
        ("topic is 2-ship@ab and overlap > 0.5", "topic: ship and overlap > 0.5"),
        ("topic is ships", "topic: ships"),
        ("an old rule", "an old rule"),
    ],
)
def test_a_stored_rule_is_read_by_people_without_ids(rule: str, short: str) -> None:
    assert readable_rule(rule) == short
    assert "@" not in rule_in_words(rule)


ODD = ("overlap <= nan", "overlap > -inf", "digits is maybe")


@pytest.mark.parametrize("rule", ["", "overlap", "size <= 3", "overlap is yes", "digits > 1", "overlap <= many", *ODD])
def test_what_is_no_rule_is_refused(rule: str) -> None:
    with pytest.raises(InputError, match="the slice"):
        parse_predicate(rule)


def test_a_stored_column_may_be_missing() -> None:
    with pytest.raises(InputError, match="inspect again"):
        parse_predicate("gold_words > 3").mask(VALUES)


def test_candidates_are_large_enough_and_different() -> None:
    found = candidate_slices(VALUES, smallest=2)
    masks = [one.mask(VALUES) for one in found]
    assert all(2 <= mask.sum() <= 4 for mask in masks)
    assert len({mask.tobytes() for mask in masks}) == len(masks)
    assert "digits is yes" in map(str, found) and "question_word is how" not in map(str, found)
    assert len({str(one) for one in found}) == len(found)


def test_a_cut_is_the_same_rule_when_it_is_read_back() -> None:
    rule = Predicate((Condition("overlap", "<=", float(f"{1 / 3:.6g}")),))
    assert parse_predicate(str(rule)) == rule


def test_halves_are_equal_and_depend_on_contents_and_ids_alone() -> None:
    ids = [f"q{number}" for number in range(101)]
    sealed = split_halves("abc", ids)
    assert sealed is not None and sealed.sum() == 50
    mixed = np.random.default_rng(0).permutation(101)
    assert (split_halves("abc", [ids[row] for row in mixed]) == sealed[mixed]).all()
    other = split_halves("abd", ids)
    assert other is not None and 20 < (other != sealed).sum() < 80


def test_one_query_has_no_halves() -> None:
    assert split_halves("abc", ["q"]) is None
