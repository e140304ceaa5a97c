"""`gemma4vec data mine`, as typed."""

import json

import pytest

from gemma4vec.cli.main import execute
from gemma4vec.data.rows.rows import Row, read_rows, write_rows
from gemma4vec.text.prompts import Document

WORDS = ["apple", "river", "cloud", "stone"]


@pytest.fixture
def rows(tmp_path):
    made = [Row(f"{word} tree", [Document(f"the {word} of a tree")], [Document("old")]) for word in WORDS]
    write_rows(tmp_path / "rows.jsonl", made)
    return tmp_path / "rows.jsonl"


def test_rows_with_negatives_scores_and_origins(rows, tmp_path, capsys):
    (tmp_path / "more.txt").write_text("a tree of another kind\nnothing\n")
    out = tmp_path / "out.jsonl.gz"
    command = ["data", "mine", str(rows), "--out", str(out), "--corpus", str(tmp_path / "more.txt"), "-n", "3"]
    assert execute(command) == 0
    assert "negatives by bm25" in capsys.readouterr().out
    read = read_rows(out)
    assert not read.unknown_keys and all(len(row.neg) == 4 and row.neg[0] == Document("old") for row in read.rows)
    assert execute([*command, "--fresh", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["negatives"] == 12 and summary["short_rows"] == 0 and summary["by"] == {"bm25": 12}
    first = json.loads(__import__("gzip").open(out, "rt").readline())
    assert [one["by"] for one in first["mined"]["neg"]] == ["bm25"] * 3
    assert first["mined"]["neg"][0]["bm25"] > 0 and first["mined"]["pos"]["bm25"][0] > first["mined"]["neg"][0]["bm25"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--ranks", "5"], "--ranks 5"),
        (["--ranks", "1-5"], "fewer than the 10"),
        (["--choose", "best"], "--choose best"),
        (["--relabel", "1"], "--relabel needs"),
        (["--no-bm25"], "no searcher"),
        (["--corpus", "{dir}/none.jsonl"], "no such file"),
        (["--corpus", "{dir}/empty.jsonl"], "the corpus is empty"),
        (["--corpus", "{dir}/number.jsonl"], "number.jsonl line 2"),
    ],
)
def test_bad_input_is_one_line(rows, tmp_path, capsys, arguments, said):
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "number.jsonl").write_text('{"text": "a"}\n{"text": 3}\n')
    filled = [word.format(dir=tmp_path) for word in arguments]
    assert execute(["data", "mine", str(rows), "--out", str(tmp_path / "out.jsonl"), *filled]) == 2
    assert said in capsys.readouterr().err.splitlines()[-1] and not (tmp_path / "out.jsonl").exists()


def test_scores_are_written_for_terms_that_learn_from_them(rows, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    command = ["data", "mine", str(rows), "--out", str(out), "-n", "2", "--json", "--scores"]
    assert execute(command) == 0
    assert json.loads(capsys.readouterr().out)["scored"] == len(WORDS)
    for line, row in zip(out.read_text().splitlines(), read_rows(out).rows, strict=True):
        notes = json.loads(line)["mined"]
        assert row.scores is not None and row.scores.teacher == "bm25"
        assert list(row.scores.pos) == notes["pos"]["bm25"] and max(row.scores.neg) < row.scores.pos[0]
        assert list(row.scores.neg) == [one["bm25"] for one in notes["neg"]]
    # What is mined without them leaves no scores behind that are of other negatives.
    assert execute(["data", "mine", str(out), "--out", str(tmp_path / "more.jsonl"), "-n", "1", "--fresh"]) == 0
    assert all(row.scores is None for row in read_rows(tmp_path / "more.jsonl").rows)


def test_what_is_read_is_never_replaced(rows, tmp_path, capsys):
    before = rows.read_bytes()
    (tmp_path / "more.jsonl").write_text('{"text": "a"}\n')
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"name: x\nstages: [{{data: [{{name: rows, path: {rows}}}], budget: {{steps: 1}}}}]\n")
    for words in ([rows, "--out", rows], [recipe, "--out", rows], [recipe, "--out", recipe]):
        assert execute(["data", "mine", *map(str, words), "-n", "2"]) == 2
        assert "is read by this command and would be replaced" in capsys.readouterr().err.splitlines()[-1]
    corpus = str(tmp_path / "more.jsonl")
    assert execute(["data", "mine", str(rows), "--corpus", corpus, "--out", corpus, "-n", "2"]) == 2
    assert rows.read_bytes() == before


def test_a_folder_that_cannot_be_written_is_found_before_the_search(rows, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("gemma4vec.api.mining.build_corpus", lambda *_: pytest.fail("searched"))
    (tmp_path / "file").write_text("x")
    assert execute(["data", "mine", str(rows), "--out", str(tmp_path / "file" / "out.jsonl"), "-n", "2"]) == 1
    assert "could not write" in capsys.readouterr().err.splitlines()[-1]
