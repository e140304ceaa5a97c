"""`gemma4vec data read`, as typed."""

import json
from pathlib import Path

import pytest
from tiny_sources import ROWS, write_csv, write_jsonl, write_parquet, write_sqlite

from gemma4vec.cli.main import execute
from gemma4vec.data.rows.rows import read_rows


def test_a_single_source_is_counted_shown_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = write_parquet(tmp_path / "r.parquet"), tmp_path / "rows.jsonl.gz"
    assert execute(["data", "read", "--source", "parquet", "--path", str(file), "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert "100.0%" in printed.out and "query: query 0" in printed.err
    assert read_rows(out).rows == ROWS


def test_settings_of_a_single_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_csv(tmp_path / "r.csv", ("left", "right"), [("a", "b")])
    command = ["data", "read", "--source", "csv", "--path", str(file), "--json"]
    assert execute(command) == 2 and "no known layout" in capsys.readouterr().err
    assert execute([*command, "--set", "columns.query=left", "--set", "columns.pos=right"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["first"] == {"query": "a", "pos": "b"} and found["sources"][0]["rows"] == 1
    assert execute([*command, "--set", "colums.query=left"]) == 2
    assert "did you mean 'columns'?" in capsys.readouterr().err


def test_plain_texts_are_written_one_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = write_sqlite(tmp_path / "q.db", ["one\nmore", "two"]), tmp_path / "texts.txt"
    assert execute(["data", "read", "--source", "sqlite", "--path", str(file), "--out", str(out)]) == 0
    assert out.read_text() == "one more\ntwo\n"


def test_the_sources_of_a_recipe_and_their_shares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = write_jsonl(tmp_path / "a.jsonl"), write_csv(tmp_path / "b.csv")
    (tmp_path / "r.yaml").write_text(
        f"name: r\nstages:\n  - data:\n      - {{name: a, path: {a}, weight: 3}}\n"
        f"      - {{name: b, source: csv, path: {b}, weight: 1}}\n    budget: {{steps: 1}}\n"
    )
    assert execute(["data", "read", str(tmp_path / "r.yaml"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(one["name"], one["share"]) for one in found["sources"]] == [("a", 0.75), ("b", 0.25)]
    assert execute(["data", "read", str(tmp_path / "r.yaml"), "--stage", "1"]) == 2
    assert execute(["data", "read"]) == 2
    assert "give exactly one of RECIPE or --source KIND" in capsys.readouterr().err


def test_what_is_read_is_never_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_jsonl(tmp_path / "r.jsonl")
    before = file.read_bytes()
    assert execute(["data", "read", "--source", "jsonl", "--path", str(file), "--out", str(file)]) == 2
    assert "r.jsonl is read by this command and would be replaced" in capsys.readouterr().err
    assert file.read_bytes() == before
