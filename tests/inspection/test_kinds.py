"""Kinds of failure on rankings made by hand."""

from typing import Any

import numpy as np
import pytest
from planted_suite import planted_suite

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.inspection.kinds import count_kinds, duplicate_above, failed, find_kinds, hub_on_top, label_doubtful
from gemma4vec.inspection.reading import Reading
from gemma4vec.inspection.shingles import Shingles
from gemma4vec.text.prompts import Document

LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"


def reading(top: list[list[int]], judged: list[tuple[int, int, int, int]]) -> Reading:
    """Of rows (query, document, grade, rank)."""
    columns = np.array(judged, dtype=np.int64).T
    scores_NK = np.zeros((len(top), len(top[0])))
    return Reading(np.array(["m"]), np.zeros((1, len(top))), np.array(top), scores_NK, *columns, np.zeros(len(judged)))


def suite(texts: list[str], queries: int) -> RetrievalSuite:
    ids = [f"q{row}" for row in range(queries)]
    return RetrievalSuite(
        "s", [f"d{row}" for row in range(len(texts))], [Document(text) for text in texts], ids, ids, {}
    )


def test_failures_and_near_misses() -> None:
    made = reading([[0]] * 4, [(0, 1, 1, 10), (1, 1, 1, 11), (2, 1, 1, 31), (3, 1, 1, 0)])
    assert failed(made).tolist() == [False, True, True, True]
    flags = find_kinds(suite(["a", "b"], 4), made, None, {})
    assert flags["near_miss"].tolist() == [False, True, False, False]
    assert set(flags) == {"near_miss", "hub_on_top", "duplicate_above"}


def test_a_hub_is_on_top_only_where_it_is_wrong_and_first() -> None:
    top = [[0, 1 + row] for row in range(20)] + [[21, 22]]
    made = reading(top, [(0, 0, 1, 1)] + [(row, 40, 1, 0) for row in range(1, 21)])
    flags = hub_on_top(made, 100)
    assert flags.tolist() == [False] + [True] * 19 + [False]


@pytest.mark.parametrize(
    ("above", "expected"),
    [(LONG.title(), True), (f"{LONG} seventeen", True), (LONG[:20], False), ("other words", False)],
)
def test_near_duplicates_above(above: str, expected: bool) -> None:
    made = reading([[0, 1]], [(0, 1, 1, 2)])
    assert duplicate_above(suite([above, LONG], 1), made).tolist() == [expected]
    assert duplicate_above(suite([above, LONG], 1), reading([[1, 0]], [(0, 1, 1, 1)])).tolist() == [False]


@pytest.mark.parametrize(
    ("other", "judged", "expected"),
    [
        ([4, 0, 9], [], True),
        ([4, 5, 6, 0], [], False),  # rank 4 of the other model
        ([9, 0, 4], [], False),  # below the other's right document
        ([4, 0, 9], [(0, 0, 0, 1)], False),  # judged as wrong
    ],
)
def test_doubtful_labels_need_both_models(other: list[int], judged: list[Any], expected: bool) -> None:
    gold = [(0, 9, 1, 2)]
    one, two = reading([[0, 9, 3]], [*judged, *gold]), reading([other], [*judged, *gold])
    assert label_doubtful(suite(["x"] * 10, 1), one, two).tolist() == [expected]


def test_rates_are_counted_among_some_queries_only() -> None:
    flags = {"hub_on_top": np.array([True, True, False, False, True]), "near_miss": np.zeros(5, dtype=bool)}
    failed_N, among_N = np.array([True, True, False, False, False]), np.array([True, True, True, True, False])
    found = {one.name: one for one in count_kinds(flags, failed_N, among_N)}
    hub = found["hub_on_top"].lift
    assert (hub.failures.hits, hub.failures.n, hub.successes.hits, hub.successes.n) == (2, 2, 0, 2)
    assert found["near_miss"].as_json()["low"] is None


def test_truncated_documents_and_the_other_models_failures() -> None:
    made = reading([[0]] * 2, [(0, 1, 1, 11), (1, 1, 1, 1)])
    flags = find_kinds(suite(["a", "b"], 2), made, made, {"gold_truncated": [True, False]})
    assert flags["gold_truncated"].tolist() == [True, False] and flags["other_misses"].tolist() == [True, False]
    assert "gold_truncated" not in find_kinds(suite(["a", "b"], 2), made, made, {"gold_truncated": [None, None]})


def test_shingles_keep_within_their_bound_and_say_the_same() -> None:
    suite = planted_suite(12)
    free, bounded = Shingles(suite), Shingles(suite, kept=15)
    for one in range(12):
        for other in range(12):
            assert bounded.similarity(one, other) == free.similarity(one, other)
            assert bounded.held <= 15 + len(free.of(other)) and bounded.held == sum(map(len, bounded._known.values()))
    assert free.similar(3, 3) and not free.similar(3, 4) and len(bounded._known) < 12 == len(free._known)
