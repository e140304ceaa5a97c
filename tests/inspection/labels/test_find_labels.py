"""The queue of doubtful pairs, a person's grades beside the suite, and what they change."""

import json
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from planted_suite import PlantedModel, planted_suite

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.errors import InputError
from gemma4vec.evaluation.scoring.bm25_model import Bm25Model
from gemma4vec.evaluation.scoring.evaluate import evaluate
from gemma4vec.inspection.inspected import Subject
from gemma4vec.inspection.labels.find_labels import find_labels, record_queue
from gemma4vec.inspection.labels.judgments import (
    Judgment,
    add_judgments,
    judgments_file,
    load_judgments,
    overlaid,
)
from gemma4vec.ledger.suite_halves import split_halves

SUBJECTS = [Subject(Bm25Model(), "bm25"), Subject(PlantedModel(), "planted")]


def wrong_labels(queries: int = 40) -> RetrievalSuite:
    """The document that every query names is judged for its neighbor: both models show it first, unjudged."""
    suite = planted_suite(queries, every=queries + 1)
    suite.queries[0] = suite.queries[0].replace("7", "x")
    qrels = {f"q{row}": {f"d{(row + 1) % queries}": 1} for row in range(queries)}
    return replace(suite, qrels=qrels)


SUITE = wrong_labels()


def queue(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "queue.jsonl").read_text().splitlines()]


def grade(folder: Path, value: Any) -> None:
    lines = [json.dumps({**one, "grade": value}) for one in queue(folder)]
    (folder / "queue.jsonl").write_text("\n".join(lines))


def test_both_models_show_the_unjudged_document_and_a_person_decides(tmp_path: Path) -> None:
    found = find_labels(SUBJECTS, SUITE, tmp_path)
    pairs = {(one["query_id"], one["doc_id"]) for one in queue(tmp_path)}
    sealed = split_halves(SUITE.fingerprint, SUITE.query_ids)
    assert sealed is not None and found["queries"] == 20
    opened = {key for key, one in zip(SUITE.query_ids, sealed, strict=True) if not one}
    assert {query for query, _ in pairs} == opened and {(key, f"d{key[1:]}") for key in opened} <= pairs
    first = queue(tmp_path)[0]
    assert first["ranks"] == {"bm25": 1, "planted-model": 1} and first["right"] and first["grade"] is None
    score = {one["model"]: one for one in found["scores"]}["bm25"]
    assert score["low"] <= score["none"] < score["high"] <= 1.0 and found["read"] == 0
    grade(tmp_path, 1)
    with pytest.raises(InputError, match="grades that are not recorded; record them first: gemma4vec inspect judge"):
        find_labels(SUBJECTS, SUITE, tmp_path)
    recorded = record_queue(tmp_path / "queue.jsonl", SUITE, "me")
    assert recorded["added"] == recorded["graded"] == len(pairs)
    assert record_queue(tmp_path / "queue.jsonl", SUITE, "me")["added"] == 0
    again = find_labels(SUBJECTS, SUITE, tmp_path)
    assert again["queue"] == 0 and again["precision"] == 1.0 and again["judged"] == len(pairs)
    changed = {one["model"]: one for one in again["scores"]}["bm25"]
    assert changed["none"] == score["none"] < changed["judged_by_people"]
    opened_alone = replace(overlaid(SUITE, load_judgments(SUITE)), role="dev")
    result = evaluate(Bm25Model(), opened_alone)
    values = [result.per_query[SUITE.name][key]["ndcg@10"] for key in sorted(opened)]
    assert changed["judged_by_people"] == pytest.approx(sum(values) / len(values))
    assert SUITE.qrels == wrong_labels().qrels


def test_near_copies_come_first(tmp_path: Path) -> None:
    suite = planted_suite(40, every=41)
    suite.queries[0] = suite.queries[0].replace("7", "x")
    copies = [one._replace(text=one.text + " Again.") for one in suite.corpus]
    suite = replace(
        suite, corpus_ids=[*suite.corpus_ids, *(f"c{row}" for row in range(40))], corpus=[*suite.corpus, *copies]
    )
    suite = replace(suite, qrels={f"q{row}": {f"c{row}": 1} for row in range(40)})
    found = find_labels(SUBJECTS, suite, tmp_path)
    first = queue(tmp_path)[0]
    assert found["near_copies"] == 20 and first["duplicate_of"] == f"c{first['query_id'][1:]}"
    assert 0.8 <= first["similarity"] < 1.0


def test_the_last_judgment_counts_and_torn_lines_do_not() -> None:
    add_judgments(SUITE, [Judgment("q1", "d2", 1), Judgment("q1", "d3", 0)])
    with judgments_file(SUITE).open("a") as stream:
        stream.write('{"query_id": "q1", "doc_id"')
    add_judgments(SUITE, [Judgment("q1", "d2", 0)], "me")
    assert load_judgments(SUITE) == {("q1", "d2"): 0, ("q1", "d3"): 0}
    lines = judgments_file(SUITE).read_text().splitlines()
    assert len(lines) == 4 and json.loads(lines[3])["by"] == "me"
    assert load_judgments(wrong_labels(42)) == {}
    kept = overlaid(SUITE, {("q1", "d2"): 0})
    assert kept.qrels["q1"] == SUITE.qrels["q1"]  # a query keeps its last right document


def _judge(number: int) -> None:
    for row in range(20):
        add_judgments(SUITE, [Judgment(f"q{row}", f"d{number}", 1)])


def test_two_people_at_once_lose_nothing() -> None:
    context = get_context("fork")
    people = [context.Process(target=_judge, args=(number,)) for number in (1, 2)]
    for one in people:
        one.start()
    for one in people:
        one.join()
    assert len(load_judgments(SUITE)) == 40


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="name two different models or more"):
        find_labels(SUBJECTS[:1], SUITE, tmp_path)
    with pytest.raises(InputError, match="labels shows single queries: planted is a final suite"):
        find_labels(SUBJECTS, replace(SUITE, role="final"), tmp_path)
    for pair, message in (
        (Judgment("x", "d1", 1), "has no query x"),
        (Judgment("q1", "x", 1), "has no document x"),
        (Judgment("q1", "d1", 11), "a grade is a number from 0 to 10"),
    ):
        with pytest.raises(InputError, match=message):
            add_judgments(SUITE, [pair])
    file = tmp_path / "queue.jsonl"
    for text, message in (
        ('{"query_id": "q1", "doc_id": "d1", "grade": null}', "has no grade"),
        ('{"query_id": "q1", "doc_id": "d1", "grade": "yes"}', 'line 1: "grade" is a whole number'),
        ("[]", "line 1: "),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=message):
            record_queue(file, SUITE)
