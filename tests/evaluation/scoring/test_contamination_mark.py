"""A run whose training data overlaps a suite: its scores carry a mark wherever they are shown."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hashed_words import HashedWords

from gemma4vec.cli.eval.eval_table import result_row
from gemma4vec.data.quality.contamination_record import ContaminationRecord, write_record
from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.errors import InputError
from gemma4vec.evaluation.comparison.corrected import compare_pairs
from gemma4vec.evaluation.results.result import load_matching_result, load_result
from gemma4vec.evaluation.scoring import guards
from gemma4vec.evaluation.scoring.bm25_model import Bm25Model
from gemma4vec.evaluation.scoring.contamination_mark import mark_sentence, touched_queries
from gemma4vec.evaluation.scoring.evaluate import evaluate
from gemma4vec.files import home
from gemma4vec.ledger.ledger import open_ledger
from gemma4vec.ledger.recording import record_run
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.report.content.contamination_sentence import contamination_sentence
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


class Copied(HashedWords):
    """A model that is opened from a folder, with known weights."""

    def __init__(self, folder, weights):
        super().__init__()
        self.folder, self.weights = folder, weights


def model_folder(folder, name):
    """The part of a saved model that names its run."""
    folder.mkdir(parents=True)
    (folder / "modules.json").write_text("[]")
    (folder / "gemma4vec.json").write_text(json.dumps({"name": name, "model": {}, "fingerprint": "f"}))
    return folder


def test_a_copied_model_carries_its_runs_mark(run, tmp_path):
    write_record(stamp(["q0", "q2"]))
    run.update_manifest(weights="w" * 64)
    record_run(run)
    unnamed = model_folder(tmp_path / "elsewhere" / "model", "renamed")
    result = evaluate(Copied(unnamed, "w" * 64), SUITE)
    assert touched_queries(result) == {("things", "q0"), ("things", "q2")}
    assert result.settings["model_weights"] == "w" * 64
    (seen,) = looks_at(SUITE)
    assert seen["model_weights"] == "w" * 64
    other = evaluate(Copied(model_folder(tmp_path / "other" / "model", run.run_id), "x" * 64), SUITE)
    assert len(touched_queries(other)) == 2
    assert "unknown: whether the training data of hashed-words" in mark_sentence(other)


def test_a_known_result_of_other_weights_is_not_reused(tmp_path):
    evaluate(Copied(model_folder(tmp_path / "model", "m"), "w" * 64), SUITE, tmp_path / "result")
    for weights, matches in (("w" * 64, True), ("x" * 64, False), (None, True)):
        found = load_matching_result(tmp_path / "result", SUITE.fingerprint, weights=weights)
        assert (found is not None) == matches


def looks_at(suite):
    with open_ledger(home()) as ledger:
        found = ledger.rows("SELECT body FROM records WHERE kind = 'look'")
    return [body for body in (json.loads(row["body"]) for row in found) if body["suite"] == suite.name]


def test_a_run_made_from_a_run_carries_its_mark(run):
    write_record(stamp(["q0"]))
    inherited = {"data": {"older": DATA}, "unknown": ["a teacher"], "pretrained": ["bundled:x"]}
    other = {"0-contrast": {"clean": {"content_hash": "b" * 64, "path": "clean.jsonl", "rows": 9}}}
    run.update_manifest(data=other, inherited=inherited)
    result, _ = trained(run)
    assert touched_queries(result) == {("things", "q0")}
    mark = result.settings["contamination"]
    assert mark["runs"] == [run.run_id, "older"] and mark["unchecked"] == ["clean"]
    assert mark["unknown"] == ["a teacher"] and mark["pretrained"] == ["bundled:x"]
    assert mark_sentence(result).endswith("unknown: whether the training data of a teacher overlaps with this suite")
    assert contamination_sentence(result).endswith(
        "unknown: whether the training data of a teacher, bundled:x overlaps with this suite"
    )
    assert result_row(result, run.path, 0)["unknown_training_data"] == ["a teacher", "bundled:x"]


def test_where_nothing_is_known_it_is_said(tmp_path):
    foreign = evaluate(HashedWords(), SUITE)
    said = "unknown: whether the training data of hashed-words overlaps with this suite"
    assert mark_sentence(foreign) == contamination_sentence(foreign) == said
    old = replace(foreign, settings={**foreign.settings, "contamination": None})
    assert contamination_sentence(old) == said
    bm25 = evaluate(Bm25Model(), SUITE)
    assert bm25.settings["contamination"] is None and contamination_sentence(bm25) == ""


def test_the_small_data_of_an_ancestor_is_checked_before_it_is_shown(run, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(guards, "ensure_checked", lambda folder, tasks: asked.append(folder.run_id))
    heir = RunFolder.create(
        home(), "heir", "name: heir\n", recipe_id="r2", data=DATA, inherited={"data": {run.run_id: DATA, "gone": DATA}}
    )
    trained(heir)
    assert asked == [heir.run_id, run.run_id]
