"""Suites in BEIR's folder layout; a broken folder is refused in one line."""

from pathlib import Path

import pytest

from gemma4vec.data.suites.retrieval import RetrievalSuite, load_suite, write_suite
from gemma4vec.errors import InputError
from gemma4vec.text.prompts import Document

CORPUS = """\
{"_id": "d1", "title": "T", "text": "one"}
{"_id": "d2", "title": null, "text": "two"}
{"_id": "d3", "text": ""}
"""
QUERIES = '{"_id": "q1", "text": "first"}\n{"_id": "q2", "text": "second"}\n{"_id": "q3", "text": "unjudged"}\n'
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq2\td2\t0\n"


def folder(path, corpus=CORPUS, queries=QUERIES, qrels=QRELS, options=None):
    for name, content in (("corpus.jsonl", corpus), ("queries.jsonl", queries), ("suite.yaml", options)):
        if content is not None:
            (path / name).write_text(content)
    if qrels is not None:
        (path / "qrels").mkdir()
        (path / "qrels" / "test.tsv").write_text(qrels)
    return path


def test_a_folder_is_read(tmp_path):
    suite = load_suite(folder(tmp_path))
    assert suite.name == tmp_path.name and suite.role is None and not suite.code and not suite.exclude_identical_ids
    assert suite.corpus_ids == ["d1", "d2", "d3"]
    assert suite.corpus == [Document("one", "T"), Document("two"), Document("")]
    assert (suite.query_ids, suite.queries) == (["q1"], ["first"])
    assert suite.qrels == {"q1": {"d1": 2, "d2": 0}}
    counts = {
        "documents": 3,
        "queries": 1,
        "judgments": 2,
        "queries_without_judgment": 1,
        "queries_without_positive": 1,
    }
    assert counts.items() <= suite.counts.items() and suite.counts["empty"] == 1


def test_options_are_read_and_survive_writing(tmp_path):
    options = "name: mine\nrole: final\nexclude_identical_ids: true\ntokens: code\n"
    (tmp_path / "suite").mkdir()
    suite = load_suite(folder(tmp_path / "suite", options=options))
    assert (suite.name, suite.role, suite.exclude_identical_ids, suite.code) == ("mine", "final", True, True)
    write_suite(tmp_path / "copy", suite)
    copy = load_suite(tmp_path / "copy")
    assert copy.fingerprint == suite.fingerprint
    assert (copy.name, copy.role, copy.code, copy.qrels, copy.corpus) == (
        "mine",
        "final",
        True,
        suite.qrels,
        suite.corpus,
    )


@pytest.mark.parametrize("odd", ["d\t1", "d\n1"])
def test_an_id_that_judgments_cannot_say_is_refused(tmp_path: Path, odd: str) -> None:
    suite = RetrievalSuite("odd", [odd], [Document("text")], ["q"], ["query"], {"q": {odd: 1}})
    with pytest.raises(InputError, match=r"^odd: the id .* holds a tab or a line break"):
        write_suite(tmp_path / "out", suite)
    assert not (tmp_path / "out").exists()


def test_the_fingerprint_sees_contents_and_not_their_order():
    def suite(**changed):
        values = {
            "name": "s", "corpus_ids": ["a", "b"], "corpus": [Document("x"), Document("y")], "query_ids": ["q", "r"],
            "queries": ["?", "!"], "qrels": {"q": {"a": 1}, "r": {"b": 1}},
        }  # fmt: skip
        return RetrievalSuite(**(values | changed)).fingerprint

    assert suite() == suite(name="other") == suite(corpus_ids=["b", "a"], corpus=[Document("y"), Document("x")])
    changes = [
        {"corpus": [Document("x"), Document("z")]},
        {"corpus": [Document("x", "t"), Document("y")]},
        {"queries": ["?", "?"]},
        {"qrels": {"q": {"a": 1}, "r": {"b": 2}}},
        {"exclude_identical_ids": True},
    ]
    assert len({suite(), *(suite(**change) for change in changes)}) == 6


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"qrels": None}, r"test.tsv: missing; judgments"),
        ({"corpus": None}, r"corpus.jsonl: missing"),
        ({"corpus": ""}, r"corpus.jsonl: the file is empty"),
        ({"queries": "\n"}, r"queries.jsonl: the file is empty"),
        ({"corpus": CORPUS + '{"_id": "d1", "text": "again"}'}, r"corpus.jsonl line 4, field '_id': 'd1' occurs twice"),
        ({"corpus": '{"_id": "d1"}'}, r"line 1, field 'text': a string is needed, not null"),
        ({"corpus": '{"_id": null, "text": "x"}'}, r"line 1, field '_id'"),
        ({"corpus": '{"_id": "d", "text": "x", "title": 3}'}, r"field 'title': a string is needed, not a number"),
        ({"corpus": "{"}, r"corpus.jsonl line 1: not JSON"),
        ({"corpus": '{"_id": "\\ud83d", "text": "x"}'}, r"corpus.jsonl line 1, field '_id': the id .* lone surrogate"),
        (
            {"queries": '{"_id": "q\\u0000", "text": "x"}'},
            r"queries.jsonl line 1, field '_id': the id .* NUL character",
        ),
        ({"qrels": QRELS + "q1\tdX\t1\nq9\td1\t1\n"}, r"2 judgments name unknown ids, first document 'dX'"),
        ({"qrels": QRELS + "q9\td1\t1\n"}, r"1 judgments name unknown ids, first query 'q9'"),
        ({"qrels": QRELS + "q1\td1\t1\n"}, r"line 5: query 'q1' and document 'd1' are judged twice"),
        ({"qrels": QRELS + "q1 d1 1\n"}, r"line 5: .* separated by tabs"),
        ({"qrels": QRELS + "q3\td1\tyes\n"}, r"line 5: score 'yes' is not a whole number"),
        ({"qrels": QRELS + "q3\td1\t0.5\n"}, r"line 5: score '0.5' is not a whole number"),
        ({"qrels": QRELS + "q3\td1\t99999999999\n"}, r"line 5: score '99999999999' is beyond 1,000,000"),
        ({"options": "name: ../../elsewhere"}, r"suite.yaml: the name '../../elsewhere' cannot name a folder"),
        ({"options": "name: a/b"}, r"the name 'a/b' cannot"),
        ({"qrels": "q1\td1\t1\n"}, r"line 1: the header .* is missing"),
        ({"qrels": "q1\td1\t+1\nq1\td2\t1\n"}, r"line 1: the header .* is missing"),
        ({"qrels": "query-id\tcorpus-id\tscore\nq1\td1\t-1\n"}, r"no query has a judgment of 1 or more"),
        ({"qrels": "query-id\tcorpus-id\tscore\n"}, r"no judgments"),
        ({"qrels": "query-id\tcorpus-id\tscore\nq1\td1\t0\n"}, r"no query has a judgment of 1 or more"),
        ({"options": "roles: dev"}, r"suite.yaml: unknown option 'roles'; known options are name, role"),
        ({"options": "role: test"}, r"option 'role' is 'test'; dev or final"),
        ({"options": "- 1"}, r"suite.yaml: options as `name: value` lines are needed"),
        ({"options": "a: ["}, r"suite.yaml is not YAML: line 1"),
    ],
)
def test_a_broken_suite_is_one_line(tmp_path, broken, reason):
    with pytest.raises(InputError, match=reason) as raised:
        load_suite(folder(tmp_path, **broken))
    assert "\n" not in str(raised.value) and str(tmp_path) in str(raised.value)


def test_unknown_ids_are_dropped_where_the_suite_says_so(tmp_path):
    suite = load_suite(folder(tmp_path, qrels=QRELS + "q1\tdX\t1\nq9\td1\t1\n", options="unknown_ids: drop"))
    assert suite.qrels == {"q1": {"d1": 2, "d2": 0}} and suite.counts["judgments_dropped"] == 2


def test_a_missing_folder(tmp_path):
    with pytest.raises(InputError, match="no such suite folder"):
        load_suite(tmp_path / "none")


def test_numbers_as_ids_and_windows_line_ends(tmp_path):
    made = folder(
        tmp_path, '{"_id": 7, "text": "x"}\r\n', '{"_id": 8, "text": "q"}\r\n', "qid\tdocid\tgain\r\n8\t7\t1.0\r\n"
    )
    suite = load_suite(made)
    assert suite.corpus_ids == ["7"] and suite.qrels == {"8": {"7": 1}}
