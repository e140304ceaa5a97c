"""Learning rates chosen at part of the budget, rows to read a matrix against, limits, Ctrl-C, and saved models."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import forked
import pytest
from matrix_plans import half_trained, matrix, row
from tiny_matrix import write_matrix, write_place

from gemma4vec.cli.main import execute
from gemma4vec.data.suites.retrieval import load_suite
from gemma4vec.evaluation.comparison.compare import compare
from gemma4vec.evaluation.results.result import load_result
from gemma4vec.evaluation.scoring.bm25_model import Bm25Model
from gemma4vec.evaluation.scoring.evaluate import evaluate
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.model.inference.embedder import Embedder

SOURCE = Path(__file__).resolve().parents[3] / "src"
BLIND = {
    "recipe": "mean",
    "name": "blind",
    "overrides": ["model.max_tokens=4", "model.prompts={query: '||', document: '||'}"],
}
SUITES = ("test-a", "test-b-12x20")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_place(tmp_path_factory.mktemp("search"))


@pytest.fixture(scope="module")
def out(place: Path) -> Path:
    return place / "out"


@pytest.fixture(scope="module")
def file(place: Path) -> Path:
    return write_matrix(
        place,
        recipes=["mean", "last.yaml", BLIND],
        search={"rows": 16},
        top={"count": 1, "seeds": [0, 1]},
        stop={"margin": 0.24},
        save_models=True,
    )


@pytest.fixture(scope="module")
def results(place: Path, file: Path, out: Path) -> dict[str, Any]:
    code, printed, said = matrix(file, out, place)
    assert code == 0, said
    return printed


def cells(out: Path, variant: str, *, search: bool) -> list[tuple[dict[str, Any], RunFolder]]:
    records = [json.loads(path.read_text()) for path in sorted((out / "cells").glob("*.json"))]
    return [(r, RunFolder(out / r["run"])) for r in records if (r["variant"], r["search"]) == (variant, search)]


def test_rates_are_chosen_at_part_of_the_budget_and_the_best_starts_anew(results: dict[str, Any], out: Path) -> None:
    for name in ("mean", "last"):
        searched, whole = cells(out, name, search=True), cells(out, name, search=False)
        assert [record["rate"] for record, _ in searched] == [0.001, 0.01]
        assert {len(run.events("step")) for _, run in searched} == {2}  # 16 rows, 8 a step
        assert {len(run.events("step")) for _, run in whole} == {4}
        assert all(not list((run.path / "evals" / "trained").glob("test-*")) for _, run in searched)
        best = max(searched, key=lambda found: found[0]["dev"])[0]["rate"]
        assert {record["rate"] for record, _ in whole} == {best} == {row(results, name)["learning_rate"]}
        assert row(results, name)["rows"] == 32
        assert not any(run.events("resumed") for _, run in whole)  # the rate alone is taken over
    assert results["search_rows"] == 16
    assert "after 16 rows" in (out / "results.md").read_text()


def test_the_rule_looks_at_the_end_of_the_search(results: dict[str, Any], out: Path) -> None:
    assert row(results, "blind")["status"] == "stopped" and not cells(out, "blind", search=False)
    control = max(cells(out, "mean", search=True), key=lambda found: found[0]["dev"])[1]
    for record, run in cells(out, "blind", search=True):
        assert record["status"] == "stopped" and "below the smallest useful effect of -0.24" in record["reason"]
        assert len(run.events("step")) == 2 and record["dev"] is not None
        found = compare(
            run.evaluation("trained", "tune-10x24"),
            control.evaluation("trained", "tune-10x24"),
            allow_different_settings=True,
        )
        assert found.interval.high < -0.24
    assert "stopped" in (out / "results.md").read_text().split("## Learning rates")[1].split("\n\n")[1]


def test_references_are_what_direct_calls_give(results: dict[str, Any], out: Path, place: Path) -> None:
    found = {one["variant"]: one for one in results["references"]}
    assert set(found) == {"bm25", "untrained"}
    folders = {load_suite(path).name: path for path in (out / "suites").iterdir()}
    models = {"bm25": Bm25Model(), "untrained": Embedder.load(place / "base", max_tokens=48)}
    for name, model in models.items():
        for suite in SUITES:
            direct = evaluate(model, load_suite(folders[suite]))
            assert found[name]["final"][suite]["mean"] == pytest.approx(direct.mean["ndcg@10"], abs=1e-6)
        assert found[name]["dev"]["queries"] == 10
    lines = (out / "results.md").read_text().split("## Scores")[1].split("\n\n")[1].splitlines()
    assert lines[-2].startswith("| bm25 | - | reference |") and lines[-1].startswith("| untrained | - | reference |")
    assert not any("bm25" in one["variant"] for one in results["rows"])  # no recipe, and not in the comparison


def test_references_may_be_left_out(results: dict[str, Any], file: Path, out: Path, place: Path) -> None:
    _, printed, _ = matrix(file, out, place, "--table", "--set", "references=[bm25]")
    assert [one["variant"] for one in printed["references"]] == ["bm25"]
    matrix(file, out, place, "--table")


def test_saved_models_are_what_was_scored(results: dict[str, Any], out: Path) -> None:
    """The merged folder of each final cell opens, and has the scores of the table."""
    folders = {load_suite(path).name: path for path in (out / "suites").iterdir()}
    for name in ("mean", "last"):
        for record, run in cells(out, name, search=False):
            assert (run.model / "model.safetensors").is_file()
            suite = load_suite(folders["test-a"])
            direct = evaluate(Embedder.load(run.model), suite, look_again="the very model that the matrix scored")
            stored = load_result(run.evaluation("trained", "test-a"))
            assert stored.mean["ndcg@10"] == pytest.approx(direct.mean["ndcg@10"], abs=1e-9)
            assert stored.settings["model_fingerprint"] == direct.settings["model_fingerprint"]
            assert record["status"] == "done"
    assert not any(run.model.exists() for _, run in cells(out, "mean", search=True))


def test_what_does_not_fit_the_minutes_is_listed(results: dict[str, Any], file: Path, out: Path, place: Path) -> None:
    """Seeds that are new, and no minute left for them; the same command with more minutes trains them."""
    more = ("--set", "top.seeds=[0, 1, 2]")
    code, printed, _ = matrix(file, out, place, *more, "--set", "minutes=0.001")
    assert code == 0 and {one["variant"] for one in printed["not_run"]} == {"mean", *_top(printed)}
    assert all("of 0.001 minutes spent" in one["reason"] for one in printed["not_run"])
    assert "## Not run" in (out / "results.md").read_text()
    assert printed["rows"][0]["seeds"] == results["rows"][0]["seeds"]  # what was there stays in the table
    spent = printed["minutes"]
    code, printed, _ = matrix(file, out, place, *more, "--set", f"minutes={spent + 10}")
    assert code == 0 and not printed["not_run"] and row(printed, "mean")["seeds"] == [0, 1, 2]


def _top(results: dict[str, Any]) -> set[str]:
    best = max((one for one in results["rows"] if one["seeds"]), key=lambda one: one["dev"]["mean"])
    return {one["variant"] for one in results["rows"] if len(one["seeds"]) > 1} | {best["variant"]}


@pytest.mark.slow  # test_resume.py has Ctrl-C in a run, test_matrix.py a killed matrix
def test_ctrl_c_keeps_the_last_step_and_ends_with_130(place: Path, tmp_path: Path) -> None:
    file = write_matrix(place, "interrupted", budget={"rows": 8 * 60}, learning_rates=[0.001], references=[])
    out = tmp_path / "out"
    words = [sys.executable, "-m", "gemma4vec", "matrix", str(file), "--out", str(out)]
    words += ["--set", f"variables.suites={place / 'suites'}"]
    process = forked.Popen(
        words,
        env=os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        # Tests that a shell started in the background ignore it, and so would what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    second = half_trained(out, process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 130
    last = said.decode().strip().splitlines()[-1]
    assert "the same command continues" in last and "Traceback" not in said.decode()
    steps = len(second.events("step"))
    assert 3 <= steps < 60
    code, printed, said_again = matrix(file, out, place)
    assert code == 0, said_again
    assert second.events("resumed")[-1]["step"] == steps  # nothing was lost
    assert [one["status"] for one in printed["rows"]] == ["done", "done"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"search": {"rows": 32}}, "less than budget.rows"),
        ({"search": {"rows": 8}, "stop": {"after_share": 0.5, "margin": 0.1}}, "leave it out"),
        ({"stop": {"margin": 0.1}}, "say after which share"),
        ({"stop": {"after_share": 0.5}}, "smallest_effect or stop.margin"),
    ],
)
def test_rules_that_contradict_each_other_are_refused(place: Path, changes: dict[str, Any], expected: str) -> None:
    stderr = io.StringIO()
    with contextlib.redirect_stderr(stderr):
        file = write_matrix(place, "wrong", **changes)
        code = execute(["matrix", str(file), "--dry-run", "--set", f"variables.suites={place / 'suites'}"])
    assert code == 2 and expected in stderr.getvalue().strip().splitlines()[-1]
