"""Metrics against an independent implementation written from their definitions."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemma4vec.errors import InputError
from gemma4vec.evaluation.scoring.metrics import judged_share, per_query, tie_rate

NAMES = ("ndcg@10", "recall@100", "mrr@10", "map", "ndcg@3", "mrr", "recall@2", "map@2", "ndcg")


def plain(ranked: list[str], judged: dict[str, int], metric: str) -> float:
    """One metric of one ranking, straight from its definition."""
    name, _, cut_text = metric.partition("@")
    cut = int(cut_text) if cut_text else len(ranked)
    relevant = {document for document, grade in judged.items() if grade >= 1}
    hits = [rank for rank, document in enumerate(ranked, start=1) if document in relevant and rank <= cut]
    if name == "mrr":
        return 1.0 / hits[0] if hits else 0.0
    if not relevant:
        return 0.0
    if name == "recall":
        return len(hits) / len(relevant)
    if name == "map":
        return sum((number + 1) / rank for number, rank in enumerate(hits)) / len(relevant)

    def discounted(grades: list[int]) -> float:
        return sum(max(grade, 0) / math.log2(rank + 1) for rank, grade in enumerate(grades, start=1))

    best = sorted(judged.values(), reverse=True)
    best = best[:cut] if cut_text else best
    return discounted([judged.get(document, 0) for document in ranked[:cut]]) / discounted(best)


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[str], list[list[float]], list[dict[str, int]]]:
    """Documents with awkward ids, scores from a few values so that they tie, graded judgments with zeros and below."""
    documents = draw(st.lists(st.text("a1Zé9-", min_size=1, max_size=3), min_size=1, max_size=14, unique=True))
    count = draw(st.integers(1, 3))
    row = st.lists(st.sampled_from([-1.5, 0.0, 0.25, 0.5, 0.1]), min_size=len(documents), max_size=len(documents))
    scores = [draw(row) for _ in range(count)]
    judgments = st.dictionaries(st.sampled_from([*documents, "not-found"]), st.integers(-1, 3), min_size=1)
    qrels = [draw(judgments.filter(lambda judged: max(judged.values()) >= 1)) for _ in range(count)]
    return documents, scores, qrels


@given(cases())
@settings(deadline=None, max_examples=200)
def test_every_metric_equals_its_definition(case: tuple[list[str], list[list[float]], list[dict[str, int]]]) -> None:
    documents, scores, judgments = case
    query_ids = [f"q{row}" for row in range(len(scores))]
    ranking_NK = np.tile(np.arange(len(documents)), (len(scores), 1))
    found = per_query(
        ranking_NK, np.array(scores), query_ids, documents, dict(zip(query_ids, judgments, strict=True)), NAMES
    )
    for row, judged in enumerate(judgments):
        # By falling 32-bit score, then by descending id.
        by_id = sorted(range(len(documents)), key=documents.__getitem__, reverse=True)
        ranked = [documents[index] for index in sorted(by_id, key=lambda index: -np.float32(scores[row][index]))]
        for metric in NAMES:
            assert found[metric][row] == pytest.approx(plain(ranked, judged, metric), abs=1e-9), metric


def test_scores_that_are_equal_in_32_bits_tie() -> None:
    qrels = {"q": {"a": 1}}
    ranking = np.array([[0, 1]])
    apart = per_query(ranking, np.array([[1.0 + 1e-5, 1.0]]), ["q"], ["a", "b"], qrels)
    tied = per_query(ranking, np.array([[1.0 + 1e-9, 1.0]]), ["q"], ["a", "b"], qrels)
    assert (apart["mrr@10"][0], tied["mrr@10"][0]) == (1.0, 0.5)


@pytest.mark.parametrize(("rank", "expected"), [(1, 1.0), (10, 0.1), (11, 0.0)])
def test_mrr_stops_at_its_cut(rank: int, expected: float) -> None:
    documents = [f"d{index:02}" for index in range(20)]
    scores = -np.arange(20.0)[None, :]
    found = per_query(np.arange(20)[None, :], scores, ["q"], documents, {"q": {documents[rank - 1]: 2}}, ["mrr@10"])
    assert found["mrr@10"][0] == pytest.approx(expected)


def test_a_query_without_retrieved_documents_scores_zero() -> None:
    found = per_query(np.full((1, 3), -1), np.full((1, 3), -np.inf), ["q"], ["a", "b", "c"], {"q": {"a": 1}}, NAMES)
    assert {metric: values[0] for metric, values in found.items()} == dict.fromkeys(NAMES, 0.0)


def test_many_queries_come_back_in_their_order() -> None:
    # More than one block; every third query finds its document first.
    count = 600
    query_ids = [f"q{row}" for row in range(count)]
    qrels = {query_id: {"a" if row % 3 == 0 else "b": 1} for row, query_id in enumerate(query_ids)}
    found = per_query(np.tile([0, 1], (count, 1)), np.tile([2.0, 1.0], (count, 1)), query_ids, ["a", "b"], qrels)
    assert found["mrr@10"].tolist() == [1.0 if row % 3 == 0 else 0.5 for row in range(count)]


@pytest.mark.parametrize("name", ["ndgc@10", "recall", "map@0", "precision@10", "", "ndcg@-1"])
def test_an_unknown_metric_is_one_line_for_people(name: str) -> None:
    with pytest.raises(InputError, match="unknown metric"):
        per_query(np.array([[0]]), np.array([[1.0]]), ["q"], ["a"], {"q": {"a": 1}}, [name])


def test_shapes_and_values_that_cannot_be_right() -> None:
    with pytest.raises(ValueError, match="not finite"):
        per_query(np.array([[0]]), np.array([[np.nan]]), ["q"], ["a"], {"q": {"a": 1}})
    with pytest.raises(ValueError, match="do not fit"):
        per_query(np.array([[0]]), np.array([[1.0, 2.0]]), ["q"], ["a"], {"q": {"a": 1}})


@pytest.mark.parametrize("bad", ["\ud83d", "d\0", "\udcff"])
def test_ids_that_trec_eval_cannot_take_are_refused(bad: str) -> None:
    ranking, scores = np.zeros((1, 1), np.int64), np.ones((1, 1))
    for query, document, judged in ((bad, "d", "d"), ("q", bad, "d"), ("q", "d", bad)):
        with pytest.raises(InputError, match="lone surrogate or a NUL character"):
            per_query(ranking, scores, [query], [document], {query: {judged: 1}})


def test_negative_grades_gain_as_much_as_none() -> None:
    ranking, scores = np.array([[0, 1, 2], [2, 1, 0]]), np.array([[3.0, 2.0, 1.0]] * 2)
    qrels = {"q": {"a": -1, "b": 2, "c": 1}, "r": {"a": -1, "b": -(2**20) // 2}}
    zero = {query: {key: max(0, grade) for key, grade in judged.items()} for query, judged in qrels.items()}
    found = per_query(ranking, scores, ["q", "r"], ["a", "b", "c"], qrels, NAMES)
    for metric, values in per_query(ranking, scores, ["q", "r"], ["a", "b", "c"], zero, NAMES).items():
        assert np.array_equal(found[metric], values) and values[1] == 0.0
        assert found[metric][0] == pytest.approx(plain(["a", "b", "c"], qrels["q"], metric))


def test_judgments_that_cannot_be_scored_are_refused() -> None:
    ranking, scores = np.zeros((1, 1), np.int64), np.ones((1, 1))
    qrels: list[tuple[dict[str, Any], str]] = [
        ({}, "query 'q' has no judgments"),
        ({"q": {}}, "query 'q' has no judgments"),
        ({"q": {"d": 0.5}}, "judgments of query 'q': score 0.5 is not a whole number"),
        ({"q": {"d": 2**40}}, "judgments of query 'q': score 1099511627776 is beyond"),
    ]
    for judged, expected in qrels:
        with pytest.raises(InputError, match=expected):
            per_query(ranking, scores, ["q"], ["d"], judged)


def test_tie_rate_counts_ties_that_touch_the_top() -> None:
    falling = -np.arange(15, dtype=np.float32)
    at_the_cut, below_it, within = falling.copy(), falling.copy(), falling.copy()
    at_the_cut[10] = at_the_cut[9]
    below_it[12] = below_it[11]
    within[3] = within[2]
    scores = np.stack([falling, at_the_cut, below_it, within])
    found = np.tile(np.arange(15), (4, 1))
    assert tie_rate(scores, found) == 0.5
    assert tie_rate(np.full((2, 3), -np.inf, np.float32), np.full((2, 3), -1)) == 0.0


def test_judged_share_counts_every_grade_and_only_what_was_retrieved() -> None:
    ranking = np.array([[0, 1, 2], [2, -1, -1]])
    qrels = {"q1": {"a": 1, "b": 0}, "q2": {"a": 1}}
    assert judged_share(ranking, ["q1", "q2"], ["a", "b", "c"], qrels) == pytest.approx(2 / 4)
    assert judged_share(ranking, ["q1", "q2"], ["a", "b", "c"], qrels, cut=1) == pytest.approx(1 / 2)


def test_binary_ndcg_is_ndcg_of_relevant_or_not() -> None:
    qrels = {"q": {"a": 3, "b": 1, "c": 0, "d": -1}}
    ranking, scores = np.array([[1, 2, 0, 3]]), np.array([[4.0, 3.0, 2.0, 1.0]])
    found = per_query(ranking, scores, ["q"], ["a", "b", "c", "d"], qrels, metrics=["ndcg@10", "ndcg_binary@10"])
    ideal = 1 + 1 / np.log2(3)
    assert found["ndcg_binary@10"][0] == pytest.approx((1 + 1 / np.log2(4)) / ideal)
    assert found["ndcg@10"][0] == pytest.approx((1 + 3 / np.log2(4)) / (3 + 1 / np.log2(3)))
