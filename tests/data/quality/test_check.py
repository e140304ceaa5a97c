"""Check sources against suites: overlaps, touched queries, records and drops."""

import pytest

from gemma4vec.data.loading.load_rows import load_sources
from gemma4vec.data.quality.check import check_sources, make_records
from gemma4vec.data.quality.cleaning import remove_faults, write_clean, write_drops
from gemma4vec.data.quality.contamination_record import (
    ContaminationRecord,
    read_record,
    read_records_of_source,
    sources_from_manifest,
    write_record,
)
from gemma4vec.data.rows.rows import Row, read_rows, write_rows
from gemma4vec.data.sources.drops import apply_drops, read_drops, row_key
from gemma4vec.data.suites.held_out_rows import RowSuite
from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.data.suites.sts import StsSuite
from gemma4vec.errors import InputError
from gemma4vec.recipe.schema import source_of
from gemma4vec.text.prompts import Document

LONG = "rain is water that falls from clouds when it is cold enough and the air is full of it"
OTHER = "a desert is a place where almost no rain falls in the course of a whole year or of many"
SUITE = RetrievalSuite(
    name="weather",
    corpus_ids=["rain", "desert", "snow"],
    corpus=[Document(f"Question: what is rain? Answer: {LONG} indeed."), Document(OTHER, "Desert"), Document("Snow.")],
    query_ids=["q1", "q2", "q3"],
    queries=["what falls from clouds", "where is no rain", "what is white"],
    qrels={"q1": {"rain": 1}, "q2": {"desert": 0, "snow": 2}, "q3": {"snow": 1}},
)


def answer(query, text, *neg):
    return Row(query, [Document(text)], [Document(one) for one in neg])


ROWS = [
    answer("something else", LONG[:-6]),  # the answer in document "rain", its last word cut
    answer("Where is no rain?", "nowhere to be seen", "elsewhere"),  # query q2
    answer("untouched", "by any of it"),
    answer("deserts", "are dry", "wet", OTHER.upper()),  # document "desert" without its title, as a negative
    answer("untouched", "by any of it"),  # a copy
    answer("one", "two", "TWO", "three"),  # a positive as negative
]


@pytest.fixture
def checked(tmp_path):
    write_rows(tmp_path / "rows.jsonl", ROWS)
    source = source_of(name="rows", path=str(tmp_path / "rows.jsonl"))
    (report,) = check_sources([source], [SUITE.texts()])
    return report


def test_overlaps_are_counted_by_field_side_and_rule(checked):
    cells = {(one["field"], one["side"]): (one["items"], one["rows"]) for one in checked.found[0].table()}
    none = {"exact": 0, "contained": 0, "near": 0}
    assert cells == {
        ("positive", "document"): ({**none, "contained": 1}, {**none, "contained": 1}),
        ("query", "query"): ({**none, "exact": 1}, {**none, "exact": 1}),
        ("negative", "document"): ({**none, "exact": 1}, {**none, "exact": 1}),
    }
    assert {(one["id"], one["row"], one["kind"]) for one in checked.found[0].examples} == {
        ("rain", 1, "contained"),
        ("q2", 2, "exact"),
        ("desert", 4, "exact"),
    }


def test_a_query_is_touched_by_itself_or_by_a_relevant_document(checked):
    assert checked.touched == [["q1", "q2"]]  # "desert" is judged 0, so it touches none


def test_faults_and_flaws(checked):
    assert checked.flaws == {"duplicate": 1, "positive_is_negative": 1} and checked.bad_rows == 0
    left = list(remove_faults(checked.rows, checked.faults))
    assert left == [ROWS[2], answer("deserts", "are dry", "wet"), answer("one", "two", "three")]
    assert checked.faults[1].reasons == ["positive contained: weather document rain"]


def test_the_list_of_drops_matches_the_clean_copy(checked, tmp_path):
    assert write_drops(tmp_path / "drop.jsonl", [checked]) == 5
    drops = read_drops(tmp_path / "drop.jsonl")
    left = list(remove_faults(ROWS, checked.faults))
    assert list(apply_drops(ROWS, drops)) == left
    elsewhere = list(apply_drops([answer("new", "row"), *ROWS[::-1]], drops))
    assert len(elsewhere) == 4 and all(row in elsewhere for row in [answer("new", "row"), *left])
    assert write_clean(tmp_path / "clean", [checked]) == {"rows": 3}
    assert read_rows(tmp_path / "clean" / "rows.jsonl.gz").rows == left


def test_a_copy_in_another_case_has_its_own_key(tmp_path):
    rows = [answer("Q", "a b c"), answer("q", "A, b, c")]
    write_rows(tmp_path / "rows.jsonl", rows)
    (report,) = check_sources([source_of(name="r", path=str(tmp_path / "rows.jsonl"))], [])
    write_drops(tmp_path / "drop.jsonl", [report])
    assert list(apply_drops(rows, read_drops(tmp_path / "drop.jsonl"))) == rows[:1]


@pytest.mark.parametrize("line", ['{"key": 3, "drop": "row"}', '{"key": "k", "drop": [-1]}', '{"drop": "row"}', "no"])
def test_a_damaged_list_is_named_with_its_line(tmp_path, line):
    (tmp_path / "drop.jsonl").write_text('{"key": "k", "drop": "row"}\n' + line + "\n")
    with pytest.raises(InputError, match=r"drop\.jsonl line 2.*data check"):
        read_drops(tmp_path / "drop.jsonl")


def test_bad_rows_are_counted_and_near_is_checked(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"query": "a", "pos": ["b"]}\nbroken\n{"query": "", "pos": ["b"]}\n')
    source = source_of(name="rows", path=str(tmp_path / "rows.jsonl"))
    (report,) = check_sources([source], [SUITE.texts()])
    assert report.bad_rows == 2 and len(report.rows) == 1 and report.touched == [[]]
    with pytest.raises(InputError, match=r"near 0\.2"):
        check_sources([source], [SUITE.texts()], near=0.2)


def test_records_are_found_by_contents(checked):
    (record,) = make_records([checked], [SUITE.texts()], 0.7)
    assert record.overlaps and record.found_documents == 2 and record.found_queries == 1
    assert record.touched_queries == ["q1", "q2"] and record.summary()["touched_queries"] == 2
    assert read_record(record.content_hash, SUITE.fingerprint) is None
    file = write_record(record)
    assert (
        read_record(record.content_hash, SUITE.fingerprint) == record == read_records_of_source(record.content_hash)[0]
    )
    assert read_record(f"{record.content_hash}:5", SUITE.fingerprint) is None  # its first five rows
    assert read_record("0" * 64, SUITE.fingerprint) is None and read_records_of_source("0" * 64) == []
    file.write_text("{")
    with pytest.raises(InputError, match="check again"):
        read_record(record.content_hash, SUITE.fingerprint)


def test_a_manifests_sources_by_contents():
    stages = {"0-a": {"x": {"content_hash": "h", "rows": 1}}, "1-b": {"x": {"content_hash": "i", "rows": 2}}}
    assert {key: one["name"] for key, one in sources_from_manifest({"data": stages}).items()} == {"h": "x", "i": "x"}
    assert sources_from_manifest({}) == {}
    assert ContaminationRecord.__doc__ and row_key(ROWS[0]) != row_key(ROWS[1])


def test_a_source_reads_the_list(checked, tmp_path):
    write_drops(tmp_path / "drop.jsonl", [checked])
    source = source_of(name="rows", path=str(tmp_path / "rows.jsonl"), drop=str(tmp_path / "drop.jsonl"))
    loaded = load_sources([source])
    assert list(loaded.rows) == list(remove_faults(ROWS, checked.faults))
    (again,) = check_sources([source], [SUITE.texts()])
    assert again.touched == [[]] and again.faults == {} and again.content_hash != checked.content_hash


def test_pairs_and_rows_are_suites_too(tmp_path):
    write_rows(tmp_path / "rows.jsonl", ROWS)
    pairs = StsSuite("sts", ["p1", "p2"], ["no", "where is no RAIN"], ["damp", "never"], [0.0, 1.0])
    rows = RowSuite("rank", "local-rank", ["1", "2"], [answer("x", f"{LONG} a", "y"), answer("untouchable", "z", "y")])
    suites = [pairs.texts(), rows.texts()]
    (report,) = check_sources([source_of(name="r", path=str(tmp_path / "rows.jsonl"))], suites)
    assert report.touched == [["p2"], ["1"]]
    assert [found.table()[0]["field"] for found in report.found] == ["query", "positive"]
    assert suites[0].query_ids == ["p1", "p2"] and report.found[0].ids("query") == {"p2"}
