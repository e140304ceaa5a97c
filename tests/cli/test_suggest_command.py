"""`gemma4vec suggest` on a tiny suggester, alone, with titles and with an index; and the commands around it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from small_suite import WORDS, write_small_suite
from tiny_saved import save_tiny
from tiny_suggester import train_suggester, write_pairs

from gemma4vec.cli.main import execute
from gemma4vec.data.rows.rows import read_rows


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("suggest")
    run = train_suggester(write_pairs(root), root / "runs", "stages.0.budget.steps=4")
    shutil.copytree(run.model, root / "suggester")
    shutil.copytree(save_tiny(root / "saved", "no-prompt-pooled"), root / "model")
    write_small_suite(root, "suite")
    (root / "log.txt").write_text("".join(f"{word} {other}\n" for word in WORDS for other in WORDS[:3]))
    return root


def suggest(place: Path, *words: str) -> int:
    return execute(["suggest", str(place / "suggester"), "--dtype", "fp32", *words])


def test_it_writes_other_queries(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert suggest(place, "--query", "read the node", "--title", "read list", "--n", "3", "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["titles"] == ["read list"] and len(found["suggestions"]) <= 3
    assert all(row["text"] != "read the node" and "cosine" not in row for row in found["suggestions"])
    assert suggest(place, "--query", "read the node", "--n", "3") == 0
    assert capsys.readouterr().out.strip()


def test_titles_come_from_an_index(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = place / "suite" / "corpus.jsonl"
    index, model = str(tmp_path / "index"), str(place / "model")
    assert execute(["index", model, str(corpus), "--to", index, "--index", "exact"]) == 0
    capsys.readouterr()
    words = ["--query", WORDS[0], "--index", index]
    assert suggest(place, *words, "--model", model, "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert len(found["titles"]) == 2 and all("cosine" in row for row in found["suggestions"])
    assert suggest(place, *words) == 2
    assert "which is no run here; name it with --model" in capsys.readouterr().err


def test_pairs_are_written_and_the_suggester_is_judged_on_the_rest(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["fanout", str(place / "model"), "--dtype", "fp32", "--log", str(place / "log.txt")]
    common += ["--suite", str(place / "suite"), "--faithful", "-1", "--n", "2"]
    pairs = tmp_path / "pairs.jsonl"
    assert execute([*common, "--target", "gold", "--pairs", str(pairs)]) == 0
    rows = read_rows(pairs).rows
    assert f"{len(rows):,} pairs of {len(WORDS)} queries" in " ".join(capsys.readouterr().out.split())
    assert {row.query for row in rows} <= set(WORDS) | {row.query for row in rows} and all(row.group for row in rows)
    assert execute([*common, "--suggester", str(place / "suggester"), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["walked"] == 0 and "suggestions" in {row["method"] for row in found["rows"]}
    facts = json.loads((place / "suggester" / "suggester.json").read_text())
    walked = tmp_path / "walked"
    shutil.copytree(place / "suggester", walked)
    facts["documents"] = sorted({row.group for row in rows})
    (walked / "suggester.json").write_text(json.dumps(facts))
    assert execute([*common, "--suggester", str(walked)]) == 2
    assert "--suggester: it learned from" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--query", " "), "--query: it is empty"),
        (("--query", "a", "--title", "b", "--index", "c"), "--title and --index exclude each other"),
        (("--query", "a", "--model", "c"), "--model is the model of an index"),
        (("--query", "a", "--index", "nothing"), "nothing"),
    ],
)
def test_bad_usage_is_one_line(
    place: Path, words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert suggest(place, *words) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ") and said in last


def test_what_is_no_suggester_is_one_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["suggest", str(place / "model"), "--query", "a"]) == 2
    assert "SUGGESTER: " in capsys.readouterr().err
