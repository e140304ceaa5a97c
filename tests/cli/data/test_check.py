"""`gemma4vec data check`, as typed."""

import json

import pytest

from gemma4vec.cli.main import execute
from gemma4vec.data.rows.rows import Row, write_rows
from gemma4vec.data.suites.retrieval import RetrievalSuite, write_suite
from gemma4vec.text.prompts import Document

TEXT = "rain is water that falls from clouds when it is cold enough and the air is full of it"


@pytest.fixture
def files(tmp_path):
    write_rows(tmp_path / "rows.jsonl.gz", [Row("what is rain", [Document(TEXT)]), Row("other", [Document("text")])])
    for name in ("one", "two"):
        corpus = [Document(f"Answer: {TEXT}" if name == "one" else "nothing of it")]
        suite = RetrievalSuite(name, ["d"], corpus, ["q"], ["query"], {"q": {"d": 1}})
        write_suite(tmp_path / "suites" / name, suite)
    return tmp_path


def test_tables_lists_and_stamps(files, capsys):
    command = ["data", "check", str(files / "rows.jsonl.gz"), "--against", str(files / "suites")]
    assert execute([*command, "--drop", str(files / "drop.jsonl"), "--clean", str(files / "clean")]) == 0
    printed = capsys.readouterr().out
    assert "one: 1 of 1 queries are touched (100.0%)" in printed and "two: nothing found" in printed
    assert "contained: rows row 1 positive" in printed and all(len(line) <= 100 for line in printed.splitlines())
    assert json.loads((files / "drop.jsonl").read_text())["row"] == 1
    assert len(list((files / "runs" / "checks").glob("*.json"))) == 2
    assert execute([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["sources"][0]["suites"][0]["touched_queries"] == ["q"]
    assert found["sources"][0]["suites"][1]["touched_queries"] == []


def test_a_recipe_and_a_file_twice(files, capsys):
    recipe = files / "recipe.yaml"
    source = f"{{name: rows, path: {files / 'rows.jsonl.gz'}}}"
    recipe.write_text(f"name: x\nstages: [{{data: [{source}], budget: {{steps: 1}}}}]\n")
    assert execute(["data", "check", str(recipe), str(files / "rows.jsonl.gz"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in found["sources"]] == ["rows", "rows-2"] and found["suites"] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.jsonl"], "no such file"),
        (["{rows}", "--against", "{dir}/none"], "{dir}/none"),
        (["{rows}", "--against", "{dir}/suites/one", "--against", "{dir}/suites/one"], "two suites are named 'one'"),
        (["{rows}", "--against", "{dir}/suites", "--near", "0.1"], "--near 0.1"),
        (["{rows}", "--drop", "{rows}"], "rows.jsonl.gz is read by this command and would be replaced"),
        (["{rows}", "--clean", "{dir}"], "rows.jsonl.gz is read by this command and would be replaced"),
    ],
)
def test_bad_input_is_one_line(files, capsys, arguments, said):
    filled = [word.format(rows=files / "rows.jsonl.gz", dir=files) for word in arguments]
    assert execute(["data", "check", *filled]) == 2
    assert said.format(dir=files) in capsys.readouterr().err.splitlines()[-1]
