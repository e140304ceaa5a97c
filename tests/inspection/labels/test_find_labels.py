"""The queue of doubtful pairs, a person's grades beside the suite, and what they change."""

import json
from dataclasses import replace
from itertools import product
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
from gemma4vec.inspection.labels.draws import Draw, random_place
from gemma4vec.inspection.labels.find_labels import find_labels, graded_lines
from gemma4vec.inspection.labels.find_labels import record_queue as record_graded
from gemma4vec.inspection.labels.judgments import (
    Judgment,
    add_judgments,
    contradicted,
    judgments_file,
    load_judgments,
    load_verdicts,
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


def record_queue(file: Path, suite: RetrievalSuite, by: str = "") -> dict[str, Any]:
    return record_graded(graded_lines(file), file, suite, by)


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
    bounds = score["if_unjudged"]
    assert bounds["low"] <= score["suite"] < bounds["high"] <= 1.0
    assert {part["read"] for part in found["precision"].values()} == {0}
    grade(tmp_path, 1)
    with pytest.raises(InputError, match="grades that are not recorded; record them first: gemma4vec inspect judge"):
        find_labels(SUBJECTS, SUITE, tmp_path)
    recorded = record_queue(tmp_path / "queue.jsonl", SUITE, "me")
    assert recorded["added"] == recorded["graded"] == len(pairs)
    assert record_queue(tmp_path / "queue.jsonl", SUITE, "me")["added"] == 0
    again = find_labels(SUBJECTS, SUITE, tmp_path)
    assert again["queue"] == 0 and again["judged"] == len(pairs) and again["readers"] == {"me": len(pairs)}
    assert again["precision"]["top"]["precision"] == again["precision"]["random"]["precision"] == 1.0  # all were read
    changed = {one["model"]: one for one in again["scores"]}["bm25"]
    assert changed["suite"] == score["suite"] < changed["with_verdicts"] == changed["with_contradictions"]
    assert changed["if_flagged"] == pytest.approx(
        dict.fromkeys(("all", "low", "high"), changed["with_verdicts"]) | {"unjudged": 0.0}
    )
    opened_alone = replace(overlaid(SUITE, load_judgments(SUITE))[0], role="dev")
    result = evaluate(Bm25Model(), opened_alone)
    values = [result.per_query[SUITE.name][key]["ndcg@10"] for key in sorted(opened)]
    assert changed["with_verdicts"] == pytest.approx(sum(values) / len(values))
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
    kept, emptied = overlaid(SUITE, {("q1", "d2"): 0, ("q2", "d2"): 1})
    assert kept.qrels["q1"] == SUITE.qrels["q1"] and emptied == ["q1"]  # a query keeps its last right document
    assert kept.qrels["q2"] == {"d3": 1, "d2": 1}


def test_a_random_queue_is_a_sample_of_all_flags(tmp_path: Path) -> None:
    likely = find_labels(SUBJECTS, SUITE, tmp_path / "likely")
    first = queue(tmp_path / "likely")
    add_judgments(SUITE, [Judgment(one["query_id"], one["doc_id"], 1, Draw("likely")) for one in first[:4]])
    drawn = find_labels(SUBJECTS, SUITE, tmp_path / "random", draw=Draw("random", 5))
    lines = queue(tmp_path / "random")
    assert drawn["queue"] == likely["queue"] - 4 == len(lines) and lines[0]["drawn"] == {"order": "random", "seed": 5}
    pairs = [(one["query_id"], one["doc_id"]) for one in lines]
    assert pairs == sorted(pairs, key=lambda pair: random_place(pair, 5, SUITE.fingerprint))
    assert pairs != [(one["query_id"], one["doc_id"]) for one in first[4:]]
    text = [json.dumps({**one, "grade": 0 if row < 6 else None}) for row, one in enumerate(lines)]
    (tmp_path / "random" / "queue.jsonl").write_text("\n".join(text))
    record_queue(tmp_path / "random" / "queue.jsonl", SUITE, "me")
    found = find_labels(SUBJECTS, SUITE, tmp_path / "random", draw=Draw("random", 5))["precision"]
    places = [random_place((one["query_id"], one["doc_id"]), 5, SUITE.fingerprint) for one in first[:4]]
    before = sum(place < random_place(pairs[5], 5, SUITE.fingerprint) for place in places)
    assert (found["random"]["read"], found["random"]["right"], found["random"]["skipped"]) == (6 + before, before, 0)
    assert (found["top"]["read"], found["top"]["precision"], found["other"]["read"]) == (4, 1.0, 0)


def test_bounds_by_flags_are_the_least_and_most_of_all_their_choices(tmp_path: Path) -> None:
    """Against every choice of right ones among the flags of two queries, all other flags being judged wrong."""
    find_labels(SUBJECTS, SUITE, tmp_path)
    pairs = [(one["query_id"], one["doc_id"]) for one in queue(tmp_path)]
    kept = [pair for pair in pairs if pair[0] in {one for one, _ in pairs[:1]}][:3] + pairs[1:3]
    add_judgments(SUITE, [Judgment(*pair, 0) for pair in pairs if pair not in kept])
    found = find_labels(SUBJECTS, SUITE, tmp_path)
    assert found["unread_flags"] == len(set(kept))
    opened = sorted({query for query, _ in pairs})
    for one, model in zip(found["scores"], (Bm25Model(), PlantedModel()), strict=True):
        scores = []
        for grades in product((0, 1), repeat=len(kept)):
            chosen, _ = overlaid(SUITE, dict(zip(kept, grades, strict=True)))
            result = evaluate(model, replace(chosen, role="dev"))
            scores.append(sum(result.per_query[SUITE.name][key]["ndcg@10"] for key in opened) / len(opened))
        bounds = one["if_flagged"]
        assert (bounds["low"], bounds["high"]) == pytest.approx((min(scores), max(scores)))
        assert bounds["all"] == pytest.approx(scores[-1]) and one["suite"] == pytest.approx(scores[0])


def test_a_label_of_the_suite_is_contradicted_beside_its_score(tmp_path: Path) -> None:
    find_labels(SUBJECTS, SUITE, tmp_path)
    lines = queue(tmp_path)
    key = lines[0]["query_id"]
    label = SUITE.qrels[key]
    assert lines[0]["right"][0] | {"doc_id": next(iter(label)), "label": 1, "grade": None} == lines[0]["right"][0]
    lines[0]["grade"], lines[0]["right"][0]["grade"] = 1, 0
    other = next(one for one in lines if one["query_id"] != key)
    other["right"][0]["grade"] = 0  # its query has no right document left
    third = next(one for one in lines if one["query_id"] not in (key, other["query_id"]))
    third["right"][0]["grade"] = 1
    (tmp_path / "queue.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(InputError, match="has 4 grades that are not recorded"):
        find_labels(SUBJECTS, SUITE, tmp_path)
    recorded = record_queue(tmp_path / "queue.jsonl", SUITE)
    assert (recorded["graded"], recorded["added"], recorded["labels_contradicted"]) == (4, 4, 2)
    found = find_labels(SUBJECTS, SUITE, tmp_path)
    assert (found["labels_contradicted"], found["labels_confirmed"], found["labels_kept"]) == (2, 1, 1)
    assert found["precision"]["top"]["read"] == 1  # a verdict on a label says nothing of flags
    scores = {one["model"]: one for one in found["scores"]}["bm25"]
    assert scores["suite"] < scores["with_verdicts"] < scores["with_contradictions"]
    by_hand = {**SUITE.qrels, key: {lines[0]["doc_id"]: 1, **dict.fromkeys(label, 0)}}
    assert overlaid(SUITE, load_judgments(SUITE))[0].qrels == by_hand
    assert SUITE.qrels == wrong_labels().qrels


def test_a_verdict_that_confirms_a_label_leaves_its_grade() -> None:
    suite = replace(SUITE, qrels={**SUITE.qrels, "q1": {"d2": 3, "d4": 0}})
    grades = {("q1", "d2"): 1, ("q1", "d4"): 2, ("q1", "d9"): 1}
    against, confirmed = contradicted(suite, grades)
    assert against == {("q1", "d4"): 2} and confirmed == {("q1", "d2"): 1}
    assert overlaid(suite, grades)[0].qrels["q1"] == {"d2": 3, "d4": 2, "d9": 1}


def test_a_judgment_that_was_drawn_anew_is_kept_once() -> None:
    again = [Judgment("q1", "d4", 1, draw) for draw in (None, Draw("likely"), Draw("likely"), Draw("random", 2), None)]
    assert [add_judgments(SUITE, [one]) for one in again] == [1, 1, 0, 1, 0]
    assert load_verdicts(SUITE).draws == {("q1", "d4"): {Draw("likely"), Draw("random", 2)}}
    assert [json.loads(line).get("drawn") for line in judgments_file(SUITE).read_text().splitlines()] == [
        None,
        {"order": "likely"},
        {"order": "random", "seed": 2},
    ]


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
        ('{"query_id": "q1", "doc_id": "d1", "grade": 1, "drawn": "random"}', 'line 1: "drawn" is'),
        (
            '{"query_id": "q1", "doc_id": "d1", "grade": 1, "right": [{"grade": 0}]}',
            'line 1: a document in "right" has',
        ),
        (
            '{"query_id": "q1", "doc_id": "d1", "grade": 1}\n{"query_id": "q1", "doc_id": "d1", "grade": 0}',
            "lines 1 and 2 grade query q1, document d1 differently",
        ),
        ("[]", "line 1: "),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=message):
            record_queue(file, SUITE)
