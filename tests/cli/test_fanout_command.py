"""`gemma4vec fanout` on a tiny model, with a log in place of a decoder."""

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from recorded_looks import recorded_looks
from small_suite import WORDS, write_small_suite
from tiny_model import write_tiny
from tiny_saved import save_tiny

from gemma4vec.api.scoring import open_scorer
from gemma4vec.cli.main import execute
from gemma4vec.data.rows.rows import read_rows
from gemma4vec.files import home
from gemma4vec.ui.content.kept_results import kept_files, load_kept


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fanout")
    shutil.copytree(save_tiny(root / "saved", "no-prompt-pooled"), root / "model")
    write_tiny(root / "base", "gemma3", layers=2)
    write_small_suite(root, "suite")
    write_small_suite(root, "sealed", role="final")
    (root / "log.txt").write_text("".join(f"{word} {other}\n" for word in WORDS for other in WORDS[:3]))
    return root


def run(place: Path, *words: str) -> int:
    return execute(["fanout", str(place / "model"), "--dtype", "fp32", "--log", str(place / "log.txt"), *words])


def test_the_table_fits_a_screen_and_says_what_it_says(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(place, "--suite", str(place / "suite"), "--n", "3", "--faithful", "-1", "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["queries"] == len(WORDS) and {row["verbatim"] for row in found["rows"] if "verbatim" in row} == {1.0}
    words = ("--suite", str(place / "suite"), "--n", "3", "--faithful", "-1", "--paraphrase", str(place / "base"))
    assert run(place, *words) == 0
    shown = capsys.readouterr().out
    assert (
        len(shown.splitlines()) <= 40
        and "(oracle)" in shown
        and "paraphrases" in shown
        and found["sentence"][:20] in shown
    )
    fingerprint = open_scorer(str(place / "model"), "fp32", None, cached=True).fingerprint
    assert recorded_looks() == [("fanout", "suite", fingerprint, ["ndcg@10", "recall@100"])] * 2


def test_the_gate_is_fitted_and_said(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(place, "--suite", str(place / "suite"), "--n", "3") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "which 75% of the 3 nearest queries of the log reach" in shown
    assert run(place, "--suite", str(place / "suite"), "--n", "3", "--faithful", "0.4") == 0
    assert "Gate: cosine 0.400 to the query, as given." in capsys.readouterr().out


def test_rows_and_records_are_written_and_read_back(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, published = tmp_path / "rows.jsonl.gz", tmp_path / "records.jsonl"
    words = ("--suite", str(place / "suite"), "--faithful", "-1", "--target", "gold", "--out", str(out))
    assert run(place, *words, "--published", str(published)) == 0
    rows = read_rows(out).rows
    assert rows and {row.task for row in rows} == {"fanout"}
    records = [json.loads(line) for line in published.read_text().splitlines()]
    assert len(records) == len(WORDS) and sum(len(one["variants"]) for one in records) == len(rows)
    assert f"{len(rows):,} rows of {len(WORDS)} queries" in capsys.readouterr().out


def test_one_walk_is_shown(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--query", WORDS[0], "--target", "text", "--to", f"the {WORDS[5]} function", "--json")
    assert run(place, *words) == 0
    found = json.loads(capsys.readouterr().out)
    degrees = [step["degrees"] for step in found["steps"]]
    assert degrees == sorted(degrees) and degrees[-1] <= found["degrees"] + 1e-6
    assert found["rank"] is None and {step["rank"] for step in found["steps"]} == {None}
    assert run(place, "--query", WORDS[0], "--suite", str(place / "suite"), "--keep") == 0
    printed = capsys.readouterr()
    (file,) = kept_files(home(), "walks")
    assert "target's rank" in " ".join(printed.out.split()) and str(file) in printed.err
    assert load_kept(file)["query"] == WORDS[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--suite", "SEALED"), "final"),
        (("--suite", "SUITE", "--n", "0"), "--n 0"),
        (("--suite", "SUITE", "--target", "silver"), "--target silver"),
        (("--suite", "SUITE", "--out", "rows.csv"), "must end in .jsonl"),
        (("--query", "a"), "needs documents"),
        (("--query", "a", "--target", "text"), "--to"),
        ((), "name a suite"),
        (("--suite", "SUITE", "--out", "rows.jsonl", "--keep"), "--keep is for the table"),
        (("--query", "a", "--to", "a", "--target", "text", "--step-degrees", "0"), "--step-degrees 0"),
    ],
)
def test_bad_usage_is_one_line(
    place: Path, words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"SEALED": str(place / "sealed"), "SUITE": str(place / "suite")}
    assert run(place, *(names.get(word, word) for word in words)) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ") and said in last


def test_ctrl_c_keeps_the_finished_rows(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from gemma4vec.fanout import training_rows

    real, calls = training_rows.keep_texts, 0

    def stopped(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(training_rows, "keep_texts", stopped)
    monkeypatch.setattr(training_rows, "BLOCK", 5)
    out = tmp_path / "rows.jsonl.gz"
    assert run(place, "--suite", str(place / "suite"), "--faithful", "-1", "--target", "gold", "--out", str(out)) == 130
    assert "rows of 5 queries" in capsys.readouterr().err
    with gzip.open(out, "rt") as stream:
        assert {json.loads(line)["group"] for line in stream} <= {f"q{row}" for row in range(5)}


def test_a_log_without_queries_is_one_line(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.txt").write_text("")
    words = ["fanout", str(place / "model"), "--dtype", "fp32", "--log", str(tmp_path / "empty.txt")]
    assert execute([*words, "--suite", str(place / "suite")]) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("error: ")
