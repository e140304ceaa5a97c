"""`g4v.mine_hard_negatives` and `g4v.check_contamination`: what the commands write and find."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hostile_page import HOSTILE, Page

import gemma4vec as g4v
from gemma4vec.cli.main import execute
from gemma4vec.data.quality.contamination_record import read_record
from gemma4vec.data.rows.rows import read_rows
from gemma4vec.data.suites.retrieval import load_suite

ROWS = [
    {"query": f"a {word} tree", "pos": [f"the {word} of a tree"], "neg": ["old"]} for word in ("apple", "pear", "fig")
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def gunzip(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes())


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    assert execute([*words, "--json"]) == 0
    return dict(json.loads(capsys.readouterr().out))


@pytest.mark.parametrize("by", ["bm25", "model", "both"])
def test_mining_writes_what_the_command_writes(
    trained: Any, tmp_path: Path, by: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "rows.jsonl", ROWS)
    folder = str(trained.run.folder)
    words = {"bm25": [], "model": ["--model", folder], "both": ["--model", folder, "--bm25"]}[by]
    command = ["data", "mine", str(file), "--out", str(tmp_path / "a.jsonl"), "-n", "2", "--ranks", "1-5", *words]
    summary = printed(capsys, *command)
    models: Any = {"bm25": "bm25", "model": trained.run, "both": [g4v.load(trained.run), "bm25"]}[by]
    made = g4v.mine_hard_negatives(file, tmp_path / "b.jsonl", by=models, n=2, ranks=(1, 5), progress=False)
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    different = {"out", "seconds"}
    assert {k: v for k, v in made.as_dict().items() if k not in different} == {
        k: v for k, v in summary.items() if k not in different
    }
    assert made.rows == 3 and made.negatives == summary["negatives"] and made.out == tmp_path / "b.jsonl"


def test_rows_in_memory_are_rows_of_a_file(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", ROWS)
    settings: dict[str, Any] = {"n": 2, "ranks": (1, 3), "fresh": True, "scores": True, "progress": False}
    g4v.mine_hard_negatives(file, tmp_path / "a.jsonl.gz", **settings)
    g4v.mine_hard_negatives(ROWS, tmp_path / "b.jsonl.gz", **settings)
    assert gunzip(tmp_path / "a.jsonl.gz") == gunzip(tmp_path / "b.jsonl.gz")
    assert all(len(row.neg) == 2 and row.scores is not None for row in read_rows(tmp_path / "b.jsonl.gz").rows)


def test_contamination_is_the_commands(trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite = load_suite(trained.suite)
    leaky = [*ROWS, {"query": suite.queries[3], "pos": ["something else"]}]
    file = write(tmp_path / "rows.jsonl", leaky)
    command = printed(capsys, "data", "check", str(file), "--against", str(trained.suite))
    found = g4v.check_contamination(file, trained.suite, progress=False)
    del command["seconds"]
    assert {**json.loads(json.dumps(found.as_dict())), "seconds": 0} == {**command, "seconds": 0}
    assert not found.is_clean and found.touched_queries == {"words": ["q3"]}
    content = command["sources"][0]["content_hash"]
    assert read_record(content, suite.fingerprint) is not None  # runs on this data carry a mark from now on
    again = g4v.check_contamination(leaky, [trained.suite], clean=tmp_path / "clean", progress=False)
    assert again.touched_queries == found.touched_queries
    assert len(read_rows(tmp_path / "clean" / "rows.jsonl.gz").rows) == 3
    clean = g4v.check_contamination(tmp_path / "clean" / "rows.jsonl.gz", trained.suite, progress=False)
    assert clean.is_clean and clean.touched_queries == {"words": []} and "nothing found" in repr(clean)


def test_recipes_and_runs_are_training_data(trained: Any) -> None:
    ways = [trained.recipe, g4v.load_recipe(trained.recipe), trained.run, trained.run.folder, trained.rows]
    found = [g4v.check_contamination(rows, trained.suite, progress=False) for rows in ways]
    assert len({one.as_dict()["sources"][0]["content_hash"] for one in found}) == 1
    assert len(g4v.check_contamination([trained.rows, trained.run], progress=False).as_dict()["sources"]) == 2


def test_hostile_texts_are_escaped(trained: Any, tmp_path: Path) -> None:
    suite = tmp_path / "evil"
    (suite / "qrels").mkdir(parents=True)
    text = f"{HOSTILE} said nobody ever"
    write(suite / "corpus.jsonl", [{"_id": "d", "text": text}])
    write(suite / "queries.jsonl", [{"_id": "q", "text": "what"}])
    (suite / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\n")
    found = g4v.check_contamination([{"query": "who", "pos": [text]}], suite, progress=False)
    assert found.touched_queries == {"evil": ["q"]}
    page = Page(found._repr_html_())
    assert set(page.tags) <= {"div", "b", "table", "thead", "tbody", "tr", "th", "td"} and not page.attributes
    assert "\x1b" not in found._repr_html_() and "\x1b" not in repr(found) and "evil" in page.text
    assert max(map(len, repr(found).splitlines())) <= 100


def test_flaws_of_rows_are_listed(tmp_path: Path) -> None:
    found = g4v.check_contamination([*ROWS, ROWS[0], {"query": "same", "pos": ["same"]}], progress=False)
    assert sum(found.flaws["rows"].values()) == 2 and found.is_clean
    made = g4v.mine_hard_negatives(ROWS, tmp_path / "x.jsonl", n=1, progress=False)
    assert "negatives by bm25" in repr(made) and str(made.out.name) in made._repr_html_()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda out: g4v.mine_hard_negatives("none.jsonl", out), "none.jsonl: no such file"),
        (lambda out: g4v.mine_hard_negatives([], out), "no rows are given"),
        (lambda out: g4v.mine_hard_negatives(ROWS, out, by=[]), "give 'bm25', one model"),
        (lambda out: g4v.mine_hard_negatives(ROWS, out, by=["a/b", "c/d"]), "give 'bm25', one model"),
        (lambda out: g4v.mine_hard_negatives(ROWS, out, n=9, ranks=(1, 5)), "fewer than the 9"),
        (lambda out: g4v.mine_hard_negatives(ROWS, out, choose="best"), "use top or draw"),
        (lambda out: g4v.mine_hard_negatives(ROWS, out, corpus="none.txt"), "none.txt"),
        (lambda out: g4v.mine_hard_negatives([{"query": object()}], out), "row 0"),
        (lambda out: g4v.mine_hard_negatives([*ROWS, "rows.jsonl"], out), "rows in memory alone"),
        (lambda out: g4v.mine_hard_negatives([3], out), "int is no training data"),
        (lambda out: g4v.check_contamination([{"pos": ["a"]}]), "rows line 1, field 'query': is missing"),
        (lambda out: g4v.check_contamination(ROWS, "nowhere"), "nowhere"),
        (lambda out: g4v.check_contamination(ROWS, near=0.1), "0.1"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, call: Any, said: str) -> None:
    with pytest.raises(g4v.InputError) as refused:
        call(tmp_path / "out.jsonl")
    assert said in str(refused.value) and "\n" not in str(refused.value)
    assert not (tmp_path / "out.jsonl").exists()


def test_odd_characters_of_a_corpus_are_cleaned_before_mining(tmp_path: Path) -> None:
    corpus = write(tmp_path / "corpus.jsonl", [{"text": "the kiwi of a \ud83d tree", "title": "a\ud83d"}])
    lines = tmp_path / "corpus.txt"
    lines.write_text("the plum\x00of a tree\n")
    rows = [{**ROWS[0], "query": "tree \ud83d", "group": "\ud83d"}, *ROWS[1:]]
    made = g4v.mine_hard_negatives(
        rows, tmp_path / "o.jsonl", corpus=[corpus, lines], n=2, ranks=(1, 9), fresh=True, progress=False
    )
    found = {document for row in read_rows(made.out).rows for document in row.neg}
    assert {("the kiwi of a   tree", "a"), ("the plum of a tree", None)} & found
    assert "\\ud83d" not in made.out.read_text(encoding="utf-8")


@pytest.mark.parametrize("ranks", ["²-9", "1-²", "1-" + "9" * 5000, "1", "-1-3", ""])
def test_ranks_that_are_no_numbers_are_one_line(tmp_path: Path, ranks: str) -> None:
    file = write(tmp_path / "rows.jsonl", ROWS)
    assert execute(["data", "mine", str(file), "--out", str(tmp_path / "o.jsonl"), "--ranks", ranks]) == 2
