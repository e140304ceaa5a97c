"""`gemma4vec privacy`: JSON, table and page have the same figures; final suites and bad options are one line."""

import json
from pathlib import Path

import pytest
from recorded_looks import recorded_looks
from small_suite import WORDS, write_small_suite
from tiny_family import make_base, make_run

from gemma4vec.api.scoring import open_scorer
from gemma4vec.cli.main import execute


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("privacy")
    run = make_run(folder / "runs", make_base(folder), 1)
    texts = folder / "texts.txt"
    lines = [f"{one} and {other} the {n}th {WORDS[n % 12]}" for n, one in enumerate(WORDS) for other in WORDS]
    texts.write_text("\n".join(dict.fromkeys(lines)) + "\n")
    return {
        "model": str(run.path),
        "dev": str(write_small_suite(folder, "words", "dev")),
        "final": str(write_small_suite(folder, "sealed", "final", " sealed")),
        "texts": str(texts),
    }


def test_json_table_and_page_have_the_same_figures(
    place: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "leak.html"
    words = ["privacy", place["model"], "--suite", place["dev"], "--texts", place["texts"], "--as", "query"]
    words += ["--held-out", "24", "--dtype", "fp32"]
    assert execute([*words, "--html", str(page), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["suite"] == "words" and found["as"] == "query" and found["texts"]["sources"] == {"texts": 24}
    assert found["texts"]["learned"] == 120 and found["remark"].startswith("a lower bound")
    rows = found["defenses"]
    assert [row["kind"] for row in rows].count("noise") == 4 and len(rows) == 13
    assert execute(words) == 0
    shown = " ".join(capsys.readouterr().out.split())
    drawn = page.read_text()
    for row in rows:
        assert f"{row['adaptive']['mean']:.3f}" in shown and f"{row['adaptive']['mean']:.3f}" in drawn
    assert "F1 is a lower bound: a stronger attacker recovers more." in shown and "a lower bound" in drawn
    looks = [("privacy", "words", open_scorer(place["model"], "fp32", None, cached=True).fingerprint, ["ndcg@10"])]
    assert recorded_looks() == looks * 2  # of one model, so that they count once


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--suite", "final"], "--suite: sealed is a final suite, which must not guide choices; use a dev suite"),
        (["--suite", "dev", "--as", "title"], "--as title: use document or query"),
        (["--suite", "dev", "--html", "page.txt"], "--html page.txt: the page's name must end in .html"),
        (["--suite", "dev", "--held-out", "3"], "3 held-out texts say nothing"),
        (["--suite", "dev"], "too few to hold out 20"),
        (["--suite", "texts"], "texts"),
        (["--suite", "dev", "--dtype", "int8"], "--dtype int8: use one of auto, fp32, bf16"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    place: dict[str, str], words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["privacy", place["model"], *(place.get(word, word) for word in words)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
