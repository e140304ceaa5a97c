"""A small source of a run is checked automatically."""

import pytest

from gemma4vec.data.loading.resolve_names import resolve_sources, resolve_suites, sources_of_run
from gemma4vec.data.quality import check_run
from gemma4vec.data.quality.check_run import ensure_checked, read_overlapping_records
from gemma4vec.data.quality.contamination_record import read_record
from gemma4vec.data.rows.rows import Row, content_hash, read_rows, write_rows
from gemma4vec.data.suites.retrieval import RetrievalSuite, write_suite
from gemma4vec.errors import InputError
from gemma4vec.files import home
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.text.prompts import Document

SUITE = RetrievalSuite("s", ["d"], [Document("an answer")], ["q"], ["a question"], {"q": {"d": 1}})
ROWS = [Row("A question!", [Document("text")]), Row("b", [Document("c")])]


@pytest.fixture
def run(tmp_path):
    write_rows(tmp_path / "rows.jsonl", ROWS)
    recipe = "name: r\nstages:\n- data: "
    recipe += "[{name: code, source: pycode}, {name: t, source: text, path: t}, {name: rows, path: ROWS}]\n"
    recipe += "  task: {kind: masked_next_token}\n  budget: {steps: 1}\n"
    stage = {
        name: {"path": str(tmp_path / "rows.jsonl"), "content_hash": content_hash(ROWS)} for name in ("code", "rows")
    }
    text = recipe.replace("ROWS", str(tmp_path / "rows.jsonl"))
    return RunFolder.create(home(), "r", text, recipe_id="i", data={"0-contrast": stage})


def test_small_data_is_checked_once(log_lines, run):
    ensure_checked(run, [SUITE])
    found = read_record(content_hash(ROWS), SUITE.fingerprint)
    assert found.touched_queries == ["q"]
    assert [one.suite for one in read_overlapping_records([content_hash(ROWS)])] == ["s"]
    log_lines.clear()
    ensure_checked(run, [SUITE])
    assert log_lines == []


def test_what_is_gone_or_large_or_changed_stays_unchecked(log_lines, run, monkeypatch, tmp_path):
    monkeypatch.setattr(check_run, "SMALL_BYTES", 1)
    ensure_checked(run, [SUITE])
    assert read_record(content_hash(ROWS), SUITE.fingerprint) is None
    monkeypatch.undo()
    (tmp_path / "rows.jsonl").write_text("broken\n")
    ensure_checked(run, [SUITE])
    assert "not checked against s" in log_lines[-1]
    write_rows(tmp_path / "rows.jsonl", ROWS[:1])
    ensure_checked(run, [SUITE])
    assert read_record(content_hash(ROWS), SUITE.fingerprint) is None
    assert read_record(content_hash(ROWS[:1]), SUITE.fingerprint) is not None


def test_a_runs_sources_are_the_rows_that_it_saw(run):
    code, _, rows = sources_of_run(run)
    assert (code.name, code.source) == ("code", "jsonl") and code.path == rows.path
    assert resolve_sources([str(run.path)]) == sources_of_run(run)
    assert read_rows(rows.path).rows == ROWS


def test_names(tmp_path):
    assert resolve_sources(["pycode"])[0].source == "pycode"
    with pytest.raises(InputError, match="no such file"):
        resolve_sources([str(tmp_path / "none.jsonl")])
    write_suite(tmp_path / "suites" / "one", SUITE)
    assert [suite.name for suite in resolve_suites([str(tmp_path / "suites")])] == ["s"]
    with pytest.raises(InputError, match="two suites are named 's'"):
        resolve_suites([str(tmp_path / "suites"), str(tmp_path / "suites" / "one")])
