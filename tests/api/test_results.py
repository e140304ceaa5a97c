"""`g4v.evaluate` and `g4v.compare`: the commands' results and rules, and how they show themselves."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_page import HOSTILE, Page
from small_suite import SIZE, write_small_suite

import gemma4vec as g4v
from gemma4vec.api.display import Shown
from gemma4vec.cli.main import execute
from gemma4vec.ledger.ledger import open_ledger


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    assert execute([*words, "--json"]) == 0
    return dict(json.loads(capsys.readouterr().out))


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert execute(list(words)) == 2
    return capsys.readouterr().err.strip().splitlines()[-1].removeprefix("error: ")


def test_scores_are_the_commands(same_home: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run, suite = same_home.run, str(same_home.suite)
    for spec, model in ((run.id, run), (run.id, g4v.load(run)), ("bm25", "bm25")):
        command = printed(capsys, "eval", spec, "--suite", suite)
        found = g4v.evaluate(model, suite, progress=False)
        assert found.mean == command["ndcg@10"]
        assert {name: command[name] for name in found.metrics} == found.metrics
        shown = (command["ndcg@10_low"], command["ndcg@10_high"])
        assert shown == (found.interval().low, found.interval().high) or found.mean in (0.0, 1.0)
        if not isinstance(model, type(g4v.load(run))):
            assert str(found.folder) == command["folder"]
        assert found.settings["run"]["run_id"] == (None if spec == "bm25" else run.id)


def test_comparisons_are_the_commands(same_home: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run, suite = same_home.run, same_home.suite
    trained, bm25 = (g4v.evaluate(model, suite, progress=False) for model in (run, "bm25"))
    for found in (
        g4v.compare(trained, bm25),
        g4v.compare(run, "bm25", suite=trained.suite),
        g4v.compare(trained, "bm25"),
    ):
        command = printed(capsys, "compare", str(trained.folder), str(bm25.folder))
        assert found.as_dict() == {**command} or json.loads(json.dumps(found.as_dict())) == command
        assert found.verdict == command["verdict"]["word"] and found.p == command["verdict"]["p"]
        assert found.sentence == command["sentence"] and found.difference == command["difference"]
        assert found.interval.low <= found.difference <= found.interval.high
        assert found.family == command["verdict"]["family"] >= 1
    with open_ledger(same_home.home) as ledger:
        assert ledger.value("SELECT count(*) FROM comparisons WHERE suite = ?", ("words",)) >= 6


def test_every_query_has_its_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = g4v.evaluate("bm25", write_small_suite(tmp_path), metrics=["recall@1"], progress=False)
    frame = found.per_query
    assert list(frame["query_id"]) == sorted(f"q{row}" for row in range(SIZE)) and set(frame["task"]) == {"words"}
    for metric, mean in found.metrics.items():
        assert np.mean(frame[metric]) == pytest.approx(mean)
    assert "recall@1" in found.metrics and type(frame).__name__ == "DataFrame"
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    plain = found.per_query
    assert type(plain) is dict and list(plain) == list(frame.columns)
    np.testing.assert_array_equal(plain["ndcg@10"], frame["ndcg@10"])


def test_all_suites_or_none(same_home: Any, tmp_path: Path) -> None:
    first, second = write_small_suite(tmp_path, "first"), write_small_suite(tmp_path, "second", "final", " here")
    with pytest.raises(g4v.InputError, match="second is a final suite"):
        g4v.evaluate(same_home.run, [first, second], progress=False)
    assert not (same_home.run.folder / "evals" / "trained" / "first").exists()
    found = g4v.evaluate("bm25", [first, second], out=tmp_path / "out", progress=False)
    assert [one.folder for one in found] == [tmp_path / "out" / "first", tmp_path / "out" / "second"]


def test_a_final_suite_says_the_commands_line(same_home: Any, tmp_path: Path, capsys: Any) -> None:
    final = write_small_suite(tmp_path, "sealed", "final", " there")
    run = same_home.run
    line = refused(capsys, "eval", run.id, "--suite", str(final))
    for model in (run, run.id, run.folder, run.model_folder, g4v.load(run), g4v.load(run.model_folder, truncate_dim=4)):
        with pytest.raises(g4v.InputError) as stopped:
            g4v.evaluate(model, final, progress=False)
        assert str(stopped.value) == line and "final suite" in line
    g4v.evaluate("bm25", final, progress=False)  # a yardstick is always open
    with open_ledger(same_home.home) as ledger:
        assert ledger.value("SELECT count(DISTINCT model) FROM looks WHERE suite = ?", ("sealed",)) == 1


def test_touched_queries_are_reported(same_home: Any, tmp_path: Path) -> None:
    folder = write_small_suite(tmp_path, "leaky")
    (folder / "queries.jsonl").write_text(
        "".join(
            json.dumps({"_id": f"q{row}", "text": "read the file" if row == 3 else f"other {row}"}) + "\n"
            for row in range(SIZE)
        )
    )
    found = g4v.evaluate(same_home.run, folder, progress=False)
    assert found.contamination is not None and "1 of 12" in found.contamination
    assert found.contamination in found._repr_html_() and "1 of 12" in repr(found)


def test_a_result_shows_bm25_next_to_it(same_home: Any) -> None:
    g4v.evaluate("bm25", same_home.suite, progress=False)
    found = g4v.evaluate(same_home.run, same_home.suite, progress=False)
    lines = repr(found).splitlines()
    assert any(line.strip().startswith("bm25") for line in lines) and "95% interval" in repr(found)
    assert max(map(len, lines)) <= 100
    page = Page(found._repr_html_())
    assert "bm25" in page.texts and f"{found.mean:.4f}" in page.texts


def test_results_print_themselves(same_home: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found = g4v.evaluate("bm25", same_home.suite, progress=False)
    capsys.readouterr()
    found.show()
    assert capsys.readouterr().out == repr(found) + "\n"
    compared = g4v.compare(g4v.evaluate(same_home.run, same_home.suite, progress=False), found)
    assert compared.sentence in " ".join(repr(compared).split()) and "A - B" in compared._repr_html_()


def test_html_is_escaped_small_and_without_scripts() -> None:
    shown = Shown(HOSTILE, [HOSTILE, "n"], [[HOSTILE, 0.5], [None, 3]], [HOSTILE, "x" * 5000])
    html = shown.html()
    page = Page(html)
    assert set(page.tags) <= {"div", "b", "table", "thead", "tbody", "tr", "th", "td"} and not page.attributes
    assert "{{ 7 * 7 }}" in page.text and "\x1b" not in html and "\u202e" not in html and "\x00" not in html
    assert len(html) < 3000 and "0.5000" in page.texts
    assert "\x1b" not in shown.text() and max(map(len, shown.text().splitlines())) <= 100


def test_hostile_names_are_escaped_in_real_results(tmp_path: Path) -> None:
    folder = write_small_suite(tmp_path, "plain")
    (folder / "suite.yaml").write_text(json.dumps({"name": "a<img src=x onerror=alert(1)>b"}))
    html = g4v.evaluate("bm25", folder, out=tmp_path / "out", progress=False)._repr_html_()
    assert "<img" not in html and "&lt;img" in html


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda t: g4v.evaluate("bm25", "nowhere", progress=False), "nowhere"),
        (lambda t: g4v.evaluate("bm25", [t.suite, t.suite], progress=False), "two suites are named 'words'"),
        (lambda t: g4v.evaluate("bm25", t.suite, max_tokens=3, progress=False), "bm25 reads whole texts"),
        (lambda t: g4v.evaluate("bm25", t.suite, role="test", progress=False), "role test: use dev or final"),
        (lambda t: g4v.evaluate(g4v.load(t.run), t.suite, dtype="fp32", progress=False), "is loaded already"),
        (lambda t: g4v.evaluate("bm25", t.suite, metrics=["ndgc@10"], progress=False), "ndgc@10"),
        (lambda t: g4v.compare("bm25", "nothing"), "no result"),
        (lambda t: g4v.compare([], "bm25"), "names no result"),
        (lambda t: g4v.compare(t.run, "bm25", margin=0.0, suite="words"), "margin 0.0: give a number above zero"),
    ],
)
def test_bad_input_is_one_line(same_home: Any, call: Any, said: str) -> None:
    g4v.evaluate("bm25", same_home.suite, progress=False)
    g4v.evaluate(same_home.run, same_home.suite, progress=False)
    with pytest.raises(g4v.InputError) as stopped:
        call(same_home)
    assert said in str(stopped.value) and "\n" not in str(stopped.value)
