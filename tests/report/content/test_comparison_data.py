"""The page about several runs: what is on it is what `compare` says, in the ledger's family."""

import json
from pathlib import Path

import pytest
from hostile_page import HOSTILE, Page
from synthetic_run import add_result, add_training, make_suite

from gemma4vec.cli.main import execute
from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.errors import InputError
from gemma4vec.evaluation.comparison.compare_seeds import ResultGroup, average_runs
from gemma4vec.evaluation.results.result import load_result, save_result
from gemma4vec.files import home
from gemma4vec.ledger.ledger import open_ledger
from gemma4vec.ledger.recording import decide, record_run
from gemma4vec.ledger.records import run_record
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.report.comparison_page import write_comparison
from gemma4vec.report.content.comparison_data import read_comparison


def make(suite: RetrievalSuite, name: str, seed: int, skill: float, *, steps: int = 40, extra: str = "") -> RunFolder:
    """A finished run of the recipe `name` with a result, as training and evaluation leave them."""
    recipe = f"name: {name}\nseed: {seed}\nstages:\n- optimizer: {{learning_rate: {skill}}}\n"
    run = RunFolder.create(
        home(), name, recipe + extra, recipe_id=f"id-{name}", seed=seed, hypothesis=f"{name} finds more",
        status="finished",
        suites={suite.name: {"path": str(home() / "suite"), "fingerprint": suite.fingerprint}},
        data={"0-contrast": {"rows": {"rows": 10, "content_hash": name * 10}}},
    )  # fmt: skip
    add_training(run, steps)
    add_result(run, suite, "trained", skill, seed + 100 * len(name))
    folder = run.evaluation("trained", suite.name)
    result = load_result(folder)
    owner = {"run_id": run.run_id, "recipe_id": f"id-{name}"}
    result.settings.update({"model_fingerprint": run.run_id, "run": owner, "created": "2026-01-01T00:00:00"})
    save_result(result, folder, [])
    record_run(run)
    return run


@pytest.fixture
def suite() -> RetrievalSuite:
    return make_suite(home() / "suite", 40)


def page(runs: list[RunFolder], out: Path) -> Page:
    return Page(write_comparison([run.path for run in runs], out).read_text(encoding="utf-8"))


def test_recipes_against_the_first_with_bm25_seeds_decisions_and_differences(
    suite: RetrievalSuite, tmp_path: Path
) -> None:
    base, *better = [make(suite, "base", 0, 0.2), make(suite, "better", 0, 0.9), make(suite, "better", 1, 0.9)]
    add_result(base, suite, "bm25", 0.3, 5)
    record = run_record(better[0]).body
    decide(home(), {**record, "path": str(better[0].path)}, "keep", "moved as hoped")
    found = read_comparison([run.path for run in [base, *better]])
    (section,) = found.suites
    assert [(group.label, group.seeds) for group in found.groups] == [("base", [0]), ("better", [0, 1])]
    assert [(row.label, row.seeds) for row in section.rows] == [("base", 1), ("better", 2), ("BM25", 1)]
    assert [(a, b) for a, b, _ in section.comparisons] == [("better", "base"), ("base", "BM25")]
    assert section.family is not None and section.family.size == 2
    mean = average_runs(ResultGroup([load_result(run.evaluation("trained", "test")) for run in better], [0, 1]).results)
    shown = page([base, *better], tmp_path / "page.html")
    interval = mean.interval("ndcg@10")
    assert f"{interval.mean:.3f} {interval.low:.3f} to {interval.high:.3f}" in shown.text
    one = section.comparisons[0][2]
    assert one.verdict.word == "better" and one.verdict.family == 2
    assert f"B better is better than A base by {one.difference:.3f} (95% interval " in shown.text
    for words in (
        "moved as hoped",
        "better finds more",
        "2 seeds",
        "speaks only of these runs",
        "(3 models seen, 2 pairs compared so far; this ledger did not record 4 of the results",
        "stages.0.optimizer.learning_rate",
        "data 0-contrast rows",
        "not checked: whether its training data overlaps",
        "Return the shortest path number",
        "Cost against quality",
    ):
        assert words in shown.text, words
    with open_ledger(home()) as ledger:
        assert ledger.value("SELECT count(*) FROM comparisons") == 4  # two pairs, read twice: still a family of two
    assert read_comparison([run.path for run in [base, *better]]).suites[0].family == section.family


def test_verdicts_say_what_they_speak_of_and_marks_stay(suite: RetrievalSuite, tmp_path: Path) -> None:
    base, better = (
        [make(suite, name, seed, skill) for seed in range(6)] for name, skill in (("base", 0.2), ("on", 0.9))
    )
    add_result(base[0], suite, "bm25", 0.3, 5)
    for run, model, changed in (
        (base[0], "bm25", {"ranking": {"degenerate": True}}),
        (better[1], "trained", {"look_again": "a reviewer asked"}),
    ):
        folder = run.evaluation(model, suite.name)
        result = load_result(folder)
        result.settings.update(changed)
        save_result(result, folder, [])
    shown = page([*base, *better], tmp_path / "page.html")
    for words in (
        "on minus base: over 6 seeds and the queries: speaks of the recipe.",
        "over seeds and queries, detects from",
        "Student's t over seeds and queries where the verdict says so",
        "BM25: degenerate",
        "base minus BM25: bm25: degenerate",
        "on: a further look at a final suite, since: a reviewer asked.",
    ):
        assert words in shown.text, words
    assert "BM25 degenerate" in " ".join(shown.text.split())
    assert "of these runs" not in shown.text.split("Is the difference real?")[0]
    few = page([*base[:5], *better], tmp_path / "few.html")
    left = f"another run of recipe id-base exists and is left out ({base[5].run_id})"
    assert few.text.count("speaks only of these runs and not of the recipe, since " + left) >= 1
    assert "over seeds and queries, detects from" not in few.text and "of these runs, detects from" in few.text


def test_the_page_loads_nothing_and_is_whole(suite: RetrievalSuite, tmp_path: Path) -> None:
    runs = [make(suite, f"r{number}", number, 0.3 + number / 20) for number in range(7)]
    shown = page(runs, tmp_path / "page.html")
    assert "script" not in shown.tags
    assert not [value for name, value in shown.attributes if name in ("src", "href") and value != "data:,"]
    assert shown.tags.count("table") == shown.tags.count("caption")


def test_hostile_words_are_shown_as_words(suite: RetrievalSuite, tmp_path: Path) -> None:
    runs = [make(suite, name, 0, 0.4) for name in ("a", "b")]
    decide(home(), {**run_record(runs[0]).body, "path": str(runs[0].path)}, "drop", HOSTILE)
    shown = page(runs, tmp_path / "page.html")
    assert "<img src=http://example.org/x>" in shown.text and "img" not in shown.tags


def test_what_is_missing_is_named(suite: RetrievalSuite, tmp_path: Path) -> None:
    bare = RunFolder.create(home(), "bare", "name: bare\n", recipe_id="id-bare")
    shown = page([make(suite, "a", 0, 0.4), bare], tmp_path / "page.html")
    assert "bare was not evaluated on test" in shown.text and "No training step was recorded" in shown.text
    other = make_suite(home() / "other", 30)
    shown = page([make(suite, "a", 0, 0.4), make(other, "b", 0, 0.4)], tmp_path / "page.html")
    assert "b is not compared with a" in shown.text
    alone = make(suite, "c", 0, 0.4)
    with pytest.raises(InputError, match="two or more different runs"):
        read_comparison([alone.path, alone.path])


def test_a_seed_that_was_asked_other_queries_or_read_less_is_left_out_and_named(
    suite: RetrievalSuite, tmp_path: Path
) -> None:
    runs = [make(suite, "a", 0, 0.4), make(suite, "b", 0, 0.5), make(suite, "b", 1, 0.5)]
    folder = runs[2].evaluation("trained", "test")
    result = load_result(folder)
    result.settings["model"] = {"max_tokens": 8}
    save_result(result, folder, [])
    shown = page(runs, tmp_path / "page.html")
    assert f"{runs[2].run_id} is left out of b on test" in shown.text and "max_tokens" in shown.text
    runs[2] = make(make_suite(home() / "other", 30), "b", 1, 0.5)
    shown = page(runs, tmp_path / "page.html")
    assert f"{runs[2].run_id} is left out of b on test" in shown.text and "different contents" in shown.text


def test_the_command(suite: RetrievalSuite, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [make(suite, "a", 0, 0.4), make(suite, "b", 0, 0.4)]
    assert execute(["report", runs[0].run_id, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["report"] == str(runs[0].path.resolve() / "report.html")
    assert execute(["report", *(run.run_id for run in runs), "--json"]) == 0
    assert Path(json.loads(capsys.readouterr().out)["report"]).parent == home() / "reports"
    assert execute(["report", runs[0].run_id, runs[1].run_id, "--out", str(tmp_path)]) == 2
    assert execute(["report", "nothing"]) == 2
    assert execute(["report", runs[0].run_id, "--correction", "none"]) == 2
