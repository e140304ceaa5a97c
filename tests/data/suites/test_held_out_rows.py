"""Held-out rows as suites: rank tests need negatives, a loss needs at least two rows."""

import json

import pytest

from gemma4vec.data.suites.held_out_rows import load_row_suite
from gemma4vec.errors import InputError

ROWS = [
    {"query": "q1", "pos": ["a"], "neg": ["b", "c"]},
    {"query": "q2", "pos": ["d"]},
    {"query": "q3", "pos": ["e"], "neg": ["f"]},
]


def write(path, rows=ROWS):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_rank_test_keeps_rows_with_negatives_and_counts_the_others(tmp_path):
    suite = load_row_suite(write(tmp_path / "held.jsonl"), "local-rank")
    assert (suite.name, suite.ids) == ("held-local-rank", ["1", "3"])
    assert (suite.counts["rows"], suite.counts["rows_without_negatives"]) == (2, 1)


def test_a_loss_takes_all_rows_and_its_settings_are_in_the_fingerprint(tmp_path):
    file = write(tmp_path / "held.jsonl")
    suite = load_row_suite(file, "loss")
    assert suite.ids == ["1", "2", "3"]
    assert load_row_suite(file, "loss", temperature=0.02).fingerprint != suite.fingerprint
    assert load_row_suite(file, "loss", max_rows=2).ids == ["1", "2"]


@pytest.mark.parametrize(
    ("rows", "kind", "settings", "reason"),
    [
        (ROWS[1:2], "local-rank", {}, "no row has a negative"),
        (ROWS[:1], "loss", {}, "only one row"),
        (ROWS, "loss", {"temperature": 0.0}, "temperature 0"),
        (ROWS, "loss", {"block": 1}, "block 1"),
    ],
)
def test_unusable_rows_and_settings_are_refused(tmp_path, rows, kind, settings, reason):
    with pytest.raises(InputError, match=reason):
        load_row_suite(write(tmp_path / "held.jsonl", rows), kind, **settings)
