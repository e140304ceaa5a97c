"""A run whose training data overlaps a suite: its scores carry a mark wherever they are shown."""

import json

import numpy as np
import pytest

from gemma4vec.data.quality.contamination_record import ContaminationRecord, write_record
from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.errors import InputError
from gemma4vec.evaluation.comparison.corrected import compare_pairs
from gemma4vec.evaluation.results.result import load_result
from gemma4vec.evaluation.scoring.bm25_model import Bm25Model
from gemma4vec.evaluation.scoring.contamination_mark import mark_sentence, touched_queries
from gemma4vec.evaluation.scoring.evaluate import evaluate
from gemma4vec.files import home
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.text.prompts import Document

WORDS = ["apple", "river", "cloud", "stone", "tiger", "bread"]
SUITE = RetrievalSuite(
    name="things",
    corpus_ids=[f"d{number}" for number in range(6)],
    corpus=[Document(f"{word} and {WORDS[number - 1]}") for number, word in enumerate(WORDS)],
    query_ids=[f"q{number}" for number in range(6)],
    queries=WORDS,
    qrels={f"q{number}": {f"d{number if number % 2 else 5 - number}": 1} for number in range(6)},
)
DATA = {"0-contrast": {"rows": {"content_hash": "a" * 64, "path": "rows.jsonl", "rows": 9}}}


def stamp(touched, documents=2):
    return ContaminationRecord(
        source="rows",
        content_hash="a" * 64,
        rows=9,
        suite=SUITE.name,
        suite_fingerprint=SUITE.fingerprint,
        queries=6,
        documents=6,
        found=[],
        touched_queries=touched,
        found_queries=0,
        found_documents=documents,
        rules={},
        created="2026-01-01T00:00:00+00:00",
    )


@pytest.fixture
def run():
    return RunFolder.create(home(), "marked", "name: marked\n", recipe_id="r1", data=DATA)


def trained(run):
    folder = run.evaluation("trained", SUITE.name)
    evaluate(Bm25Model(), SUITE, folder, name="trained")
    return load_result(folder), json.loads((folder / "metrics.json").read_text())


def test_scores_come_with_and_without_the_touched_queries(run):
    write_record(stamp(["q0", "q2"]))
    result, written = trained(run)
    assert touched_queries(result) == {("things", "q0"), ("things", "q2")}
    rest = [scores["ndcg@10"] for key, scores in result.per_query[SUITE.name].items() if key not in ("q0", "q2")]
    assert written["mean_without_touched_queries"]["ndcg@10"] == pytest.approx(np.mean(rest))
    assert np.mean(rest) != pytest.approx(result.mean["ndcg@10"])
    assert written["settings"]["contamination"]["sources"][0]["touched_queries"] == 2
    said = mark_sentence(result)
    assert said == f"training data touches 2 of 6 queries; ndcg@10 {np.mean(rest):.4f} on the other 4"


def test_a_comparison_is_also_made_without_them(run):
    write_record(stamp(["q0", "q2"]))
    marked, _ = trained(run)
    plain = evaluate(Bm25Model(), SUITE, run.evaluation("bm25", SUITE.name), name="bm25")
    assert plain.settings["contamination"] is None and mark_sentence(plain) is None
    lowered = {
        key: {name: value / 2 for name, value in scores.items()} for key, scores in plain.per_query[SUITE.name].items()
    }
    worse = type(plain)("worse", plain.suite, {SUITE.name: lowered}, plain.settings)
    (found,), _ = compare_pairs([(marked, worse)])
    left = [(marked.per_query[SUITE.name][key]["ndcg@10"], lowered[key]["ndcg@10"]) for key in ("q1", "q3", "q4", "q5")]
    assert (found.touched.touched, found.touched.left, found.test.n) == (2, 4, 4)
    assert (found.mean_a, found.mean_b) == pytest.approx(tuple(np.mean(left, axis=0)))
    assert found.interval.mean == pytest.approx(found.mean_a - found.mean_b)
    assert "undetermined" in found.sentence() and "on the 4 queries that no training data touches" in found.sentence()
    whole = tuple(one.mean["ndcg@10"] for one in (marked, worse))
    assert (found.touched.mean_a, found.touched.mean_b) == pytest.approx(whole)
    (clean,), _ = compare_pairs([(worse, plain)])
    assert clean.touched is None


def test_where_all_queries_are_touched_nothing_is_left(run):
    write_record(stamp(SUITE.query_ids))
    result, written = trained(run)
    assert "mean_without_touched_queries" not in written
    assert mark_sentence(result) == "training data touches 6 of 6 queries; no others are left"
    plain = evaluate(Bm25Model(), SUITE, run.evaluation("bm25", SUITE.name), name="bm25")
    (found,), _ = compare_pairs([(result, plain)], margin=0.5, no_worse_than=0.5)
    assert (found.verdict.word, found.verdict.p, found.touched.left) == ("undetermined", 1.0, 0)
    assert not found.equivalence.shown and not found.no_worse.shown
    assert "training data touches all 6 queries" in found.verdict.reason


def test_clean_and_unchecked_data(run):
    unchecked, written = trained(run)
    assert written["settings"]["contamination"]["unchecked"] == ["rows"]
    assert mark_sentence(unchecked) == "not checked against this suite: rows (gemma4vec data check)"
    assert mark_sentence(unchecked, unchecked=False) is None
    write_record(stamp([], documents=0))
    assert mark_sentence(trained(run)[0]) is None
    write_record(stamp([], documents=3))
    assert mark_sentence(trained(run)[0]) == "training data holds 3 of its documents, none of them relevant to a query"


def test_a_damaged_stamp_stops_before_anything_is_ranked(run):
    write_record(stamp([])).write_text("[]")
    with pytest.raises(InputError, match="check again"):
        trained(run)
