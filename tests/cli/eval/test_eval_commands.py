"""`gemma4vec eval bm25` and `gemma4vec compare`, as a person types them."""

import json
from pathlib import Path

import pytest
from small_suite import write_small_suite

from gemma4vec.cli.main import execute


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A suite of 12 queries, each with one right document, and an empty home."""
    monkeypatch.setenv("GEMMA4VEC_HOME", str(tmp_path / "home"))
    return write_small_suite(tmp_path)


def test_eval_writes_below_home_and_prints_json(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["eval", "bm25", "--suite", str(suite), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["ndcg@10"] == pytest.approx(0.5)
    assert printed["ndcg@10_low"] < 0.5 < printed["ndcg@10_high"]
    folder = suite.parent / "home" / "evals" / "bm25" / "words"
    assert printed["folder"] == str(folder)
    assert {path.name for path in folder.iterdir()} == {"metrics.json", "per_query.parquet", "top.parquet"}


def test_eval_prints_a_table_and_takes_a_place(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["eval", "bm25", "--suite", str(suite), "--out", str(suite.parent / "here")]) == 0
    printed = capsys.readouterr().out
    assert "0.5000" in printed and "95% interval" in printed
    assert (suite.parent / "here" / "words" / "metrics.json").is_file()


def test_compare_says_better_and_undetermined(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["eval", "bm25", "--suite", str(suite)]) == 0
    # A model that finds everything: the same result with perfect scores.
    from gemma4vec.evaluation.results.result import Result, load_result, save_result

    home = suite.parent / "home" / "evals"
    bm25 = load_result(home / "bm25" / "words")
    perfect = {query_id: dict.fromkeys(scores, 1.0) for query_id, scores in bm25.per_query["words"].items()}
    unrecorded = {**bm25.settings, "look": None}  # with the look of another result it would be refused
    save_result(Result("perfect", "words", {"words": perfect}, unrecorded), home / "perfect" / "words", [])
    capsys.readouterr()
    assert execute(["compare", "perfect", "bm25", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["verdict"]["word"], printed["wins"], printed["losses"]) == ("better", 6, 0)
    assert printed["interval"]["mean"] == pytest.approx(0.5)
    save_result(Result("twin", "words", bm25.per_query, unrecorded), home / "twin" / "words", [])
    assert execute(["compare", "twin", "bm25"]) == 0
    assert "undetermined" in capsys.readouterr().out
    assert execute(["compare", "twin", "bm25", "--margin", "0.01"]) == 0
    assert "equivalent" in capsys.readouterr().out
    assert execute(["compare", "bm25", "bm25", "--margin", "0.01"]) == 2
    assert "is on both sides" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["eval", "bm25"],
        ["eval", "bm25", "--suite", "nowhere"],
        ["eval", "bm25", "--suite", "SUITE", "--dtype", "int3"],
        ["eval", "bm25", "--suite", "SUITE", "--suite", "SUITE"],
        ["eval", "bm25", "--suite", "SUITE", "--max-tokens", "64"],
        ["eval", "bm25", "--suite", "SUITE", "--seed", "-1"],
        ["compare", "bm25", "nothing"],
        ["compare", "bm25", "bm25", "--margin", "0"],
        ["compare", "bm25", "bm25", "--seed", "-1"],
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(
    suite: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute([str(suite) if word == "SUITE" else word for word in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
