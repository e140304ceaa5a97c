"""`gemma4vec data stats`, as typed."""

import json

import pytest
from tiny_model import write_tiny

from gemma4vec.cli.main import execute
from gemma4vec.data.rows.rows import Row, write_rows
from gemma4vec.text.prompts import Document


@pytest.fixture
def rows(tmp_path):
    write_rows(
        tmp_path / "rows.jsonl", [Row("read the file", [Document("def file_read")], [Document("file tree")])] * 5
    )
    return tmp_path / "rows.jsonl"


def test_table_json_and_page(rows, tmp_path, capsys):
    assert execute(["data", "stats", str(rows), "--html", str(tmp_path / "page.html")]) == 0
    printed = capsys.readouterr().out
    assert "query words" in printed and "shared" in printed and all(len(line) <= 100 for line in printed.splitlines())
    assert "<svg" in (tmp_path / "page.html").read_text()
    assert execute(["data", "stats", str(rows), str(rows), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["rows"] for one in found["sources"]] == [5, 5] and found["sources"][0]["unit"] == "words"


def test_tokens_and_cosines_of_a_model(rows, tmp_path, capsys):
    base = str(write_tiny(tmp_path / "base", "llama", layers=1))
    assert execute(["data", "stats", str(rows), "--tokenizer", base, "--model", base, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["sources"]
    assert found["unit"] == "tokens" and found["lengths"]["query"]["median"] >= 4  # BOS and three words
    assert -1 <= found["similarity"]["mean"] <= 1 and found["above"] in (0.0, 1.0)


def test_a_missing_file_is_bad_input(capsys):
    assert execute(["data", "stats", "none.jsonl"]) == 2
    assert "no such file" in capsys.readouterr().err
