"""A matrix of tiny models: what it writes, what it survives, and that its figures are what direct calls give."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import stdev
from typing import Any

import forked
import numpy as np
import pytest
from matrix_plans import BLIND, BROKEN, half_trained, matrix, row
from tiny_matrix import write_matrix, write_place

from gemma4vec.data.suites.retrieval import RetrievalSuite, load_suite, write_suite
from gemma4vec.evaluation.comparison.compare import compare
from gemma4vec.evaluation.results.result import Result, load_result
from gemma4vec.files import home
from gemma4vec.ledger.recording import freeze
from gemma4vec.ledger.run_folder import RunFolder, list_runs
from gemma4vec.statistics.bootstrap import mean_interval
from gemma4vec.statistics.paired import sign_flip_test
from gemma4vec.statistics.student import t_interval
from gemma4vec.text.prompts import Document

SOURCE = Path(__file__).resolve().parents[3] / "src"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_place(tmp_path_factory.mktemp("matrix"))


@pytest.fixture(scope="module")
def out(place: Path) -> Path:
    return place / "out"


@pytest.fixture(scope="module")
def file(place: Path) -> Path:
    return write_matrix(
        place,
        recipes=["mean", BROKEN, "last.yaml", BLIND],
        top={"count": 1, "seeds": [0, 1]},
        smallest_effect=0.24,
        stop={"after_share": 0.5},
    )


@pytest.fixture(scope="module")
def results(place: Path, file: Path, out: Path) -> dict[str, Any]:
    """What the whole matrix printed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEMMA4VEC_CACHE", str(place / "cache"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        code, printed, _ = matrix(file, out, place)
    assert code == 1  # one recipe is broken
    return printed


def cells(out: Path) -> dict[str, dict[str, Any]]:
    return {file.stem: json.loads(file.read_text()) for file in (out / "cells").glob("*.json")}


def runs_of(out: Path, variant: str, rate: float) -> list[Path]:
    """Run folders of a variant at a rate, by seed."""
    found = [cell for cell in cells(out).values() if cell["variant"] == variant and cell["rate"] == rate]
    return [out / cell["run"] for cell in sorted(found, key=lambda cell: cell["seed"])]


def test_every_recipe_gets_the_same_grid_and_the_best_goes_on(results: dict[str, Any]) -> None:
    assert [row["variant"] for row in results["rows"]] == ["mean", "broken", "last", "blind"]
    for name in ("mean", "last"):
        grid = next(one for one in results["grid"] if one["variant"] == name)
        assert list(grid["scores"]) == ["0.001", "0.01"]
        best = max(grid["scores"], key=lambda rate: grid["scores"][rate])
        assert row(results, name)["learning_rate"] == float(best)
        assert row(results, name)["status"] == "done"
    assert row(results, "mean")["seeds"] == [0, 1]  # the control has the seeds of the top


def test_the_failure_of_one_recipe_is_its_own(results: dict[str, Any], out: Path) -> None:
    assert row(results, "broken")["status"] == "failed"
    assert {one["variant"] for one in results["failed"]} == {"broken"}
    assert "/no/such/model" in results["failed"][0]["reason"] and "\n" not in results["failed"][0]["reason"]
    assert "/no/such/model" in (out / "results.md").read_text()
    assert {cell["status"] for cell in cells(out).values() if cell["variant"] == "broken"} == {"failed"}


def test_the_rule_stops_what_is_far_below_the_control(results: dict[str, Any], out: Path) -> None:
    stopped = {one["variant"] for one in results["stopped"]}
    assert stopped == {"blind"} and row(results, "blind")["status"] == "stopped"
    for one in results["stopped"]:
        assert "below the smallest useful effect of -0.24" in one["reason"]
    control = RunFolder(runs_of(out, "mean", row(results, "mean")["learning_rate"])[0])
    for path in runs_of(out, "blind", 0.001) + runs_of(out, "blind", 0.01):
        run = RunFolder(path)
        assert len(run.events("step")) == 2 and not run.model.exists()  # half of four steps
        assert run.events("stopped")
        decision = json.loads((run.path / "decision.json").read_text())["body"]
        assert decision["decision"] == "drop" and decision["words"].startswith("stop rule: ")
        shares = run.evaluation("share", "tune-10x24"), control.evaluation("share", "tune-10x24")
        found = compare(*shares, allow_different_settings=True)
        assert found.interval.high < -0.24
    for path in runs_of(out, "last", 0.001):  # looked at, and not stopped
        assert (RunFolder(path).evaluation("share", "tune-10x24") / "metrics.json").is_file()
        assert len(RunFolder(path).events("step")) == 4


def test_the_figures_are_what_direct_calls_give(results: dict[str, Any], out: Path) -> None:
    runs = {name: runs_of(out, name, row(results, name)["learning_rate"]) for name in ("mean", "last")}
    suites = ("test-a", "test-b-12x20")

    def scores(path: Path) -> dict[str, Result]:
        return {name: load_result(path / "evals" / "trained" / name) for name in (*suites, "tune-10x24")}

    def values(found: dict[str, Result], names: tuple[str, ...]) -> tuple[np.ndarray, list[str]]:
        parts = [found[name].values("ndcg@10")[1] for name in names]
        return np.concatenate(parts), [name for name, part in zip(names, parts, strict=True) for _ in part]

    means = [scores(path) for path in runs["mean"]]
    last = scores(runs["last"][0])
    assert len(means) == 2
    for name in (*suites, "tune-10x24"):
        average = np.mean([values(found, (name,))[0] for found in means], axis=0)
        direct = mean_interval(average)
        shown = row(results, "mean")["dev"] if name.startswith("tune") else row(results, "mean")["final"][name]
        assert (shown["mean"], shown["low"], shown["high"]) == pytest.approx((direct.mean, direct.low, direct.high))
    by_seed = [np.mean([found[name].mean["ndcg@10"] for name in suites]) for found in means]
    spread = row(results, "mean")["spread"]
    assert (spread["min"], spread["max"], spread["sd"]) == pytest.approx((min(by_seed), max(by_seed), stdev(by_seed)))
    ours, strata = values(last, suites)
    theirs, _ = values(means[0], suites)  # the seed that both have
    difference = t_interval(ours - theirs, strata)
    test = sign_flip_test(ours - theirs, strata, levels=[0.05 / 3])
    shown = row(results, "last")["difference"]
    assert shown["seeds"] == [0] and shown["n"] == 24
    assert (shown["mean"], shown["low"], shown["high"]) == pytest.approx(
        (difference.mean, difference.low, difference.high)
    )
    # Four models were seen on these suites: two recipes (the seeds of one are one try), BM25 and the untrained base.
    assert shown["p"] == pytest.approx(test.p) and shown["comparisons"] == 3
    assert shown["p_holm"] == pytest.approx(min(1.0, 3 * test.p)) and shown["detectable"] > 0
    assert any("describes these runs only" in note for note in results["notes"])
    assert "blind reads up to 4 tokens of a text and mean up to 48." in results["notes"]


def test_costs_are_those_of_the_run(results: dict[str, Any], out: Path) -> None:
    found = row(results, "last")
    run = RunFolder(runs_of(out, "last", found["learning_rate"])[0])
    finished, noted = run.events("stage_finished")[-1], run.events("cell")[-1]
    assert found["rows"] == 32 and found["tokens"] == finished["tokens"]
    assert found["flops"] == finished["tokens"] * noted["flops_per_token"]
    assert found["minutes"] == pytest.approx(finished["seconds"] / 60)
    assert (found["trainable"], found["total"]) == tuple(run.manifest["parameters"].values())
    assert found["peak_memory_bytes"] > 1e8


def test_all_see_the_same_rows_in_the_same_order(results: dict[str, Any], out: Path) -> None:
    """What was trained on, by the runs' own record, and by hand for one batch."""
    hashes: dict[int, set[str]] = {}
    for cell in cells(out).values():
        for event in RunFolder(out / cell["run"]).events("cell"):
            hashes.setdefault(cell["seed"], set()).add(event["rows_hash"])
    assert set(hashes) == {0, 1} and all(len(found) == 1 for found in hashes.values())
    assert hashes[0] != hashes[1]
    assert not any("other rows" in note for note in results["notes"])


def test_files_are_whole(results: dict[str, Any], out: Path) -> None:
    assert json.loads((out / "results.json").read_text())["rows"] == results["rows"]
    lines = list(csv.DictReader((out / "results.csv").read_text().splitlines()))
    assert [line["variant"] for line in lines] == ["mean", "broken", "last", "blind", "bm25", "untrained"]
    assert float(lines[2]["p_holm"]) == row(results, "last")["difference"]["p_holm"]
    text = (out / "results.md").read_text()
    for heading in ("## Scores", "## Against the control", "## Cost", "## Learning rates", "## Failed", "## Stopped"):
        assert heading in text
    page = (out / "results.html").read_text()
    shown = row(results, "last")["difference"]
    for words in (f"{shown['mean']:+.3f}", "Against the control", "bm25", "untrained", "Scores", "<svg"):
        assert words in page
    assert "<script" not in page and "://" not in page
    (result,) = {path.parent for path in out.glob("runs/*-last-*/evals/trained/test-a/per_query.parquet")}
    assert load_result(result).per_query["test-a"]


def test_finished_cells_are_never_done_again(results: dict[str, Any], file: Path, out: Path, place: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*") if path.is_file()}
    code, printed, said = matrix(file, out, place)
    assert code == 1 and printed["rows"] == results["rows"] and "broken" in said
    assert {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("dev.0.max_queries=5", "dev was "),
        ("budget.rows=64", "budget was {"),
        ("metric=map", 'metric was "ndcg@10"'),
        ("recipes.2={recipe: mean.yaml, name: last}", "recipe last changed"),
    ],
)
def test_a_matrix_that_contradicts_its_folder_is_refused(
    results: dict[str, Any], file: Path, out: Path, place: Path, change: str, expected: str
) -> None:
    code, _, said = matrix(file, out, place, "--set", change)
    last = said.strip().splitlines()[-1]
    assert code == 2 and expected in last and "use another --out" in last


def test_more_recipes_are_more_cells(results: dict[str, Any], file: Path, out: Path, place: Path) -> None:
    code, plan, _ = matrix(file, out, place, "--set", "recipes.1={recipe: last, name: more}", "--dry-run")
    assert code == 0
    assert {cell["cell"] for cell in plan["cells"] if cell["status"] == "waiting" and cell["variant"] == "more"}
    assert {cell["status"] for cell in plan["cells"] if cell["variant"] == "mean"} == {"trained", "done"}


def sealed(suite: RetrievalSuite) -> RetrievalSuite:
    """A final suite with texts of its own: the other matrices of this file hold out the one that it is made from."""
    corpus = [Document(f"sealed {number}", title) for number, (_, title) in enumerate(suite.corpus)]
    queries = [f"sealed {query}" for query in suite.queries]
    return replace(suite, name="sealed", role="final", corpus=corpus, queries=queries)


def test_a_suite_that_calls_itself_final_waits_for_the_freeze(place: Path, tmp_path: Path) -> None:
    """The matrix scores what it holds out itself and stores the reason; a person's final suite is guarded here too."""
    final = tmp_path / "suites" / "sealed"
    write_suite(final, sealed(load_suite(place / "suites" / "test-b")))
    changes: dict[str, Any] = {"recipes": ["mean"], "learning_rates": [0.01], "references": ["bm25"]}
    changes["final"] = [{"suite": str(place / "suites" / "test-a"), "max_queries": 9}, {"suite": str(final)}]
    file, out = write_matrix(place, "sealed", **changes), tmp_path / "out"
    code, printed, _ = matrix(file, out, place)
    (failed,) = printed["failed"]
    (run,) = [RunFolder(path) for path in (out / "runs").iterdir()]
    assert code == 1
    assert failed["reason"].endswith('(or give a reason for this look: --look-again "WHY")')
    assert (
        f"sealed is a final suite, for frozen recipes only; first: gemma4vec runs freeze {run.run_id}"
        in (failed["reason"])
    )
    (own,) = (run.path / "evals" / "trained").glob("test-a*")
    assert load_result(own).settings["look_again"].startswith("held out by the matrix sealed")
    assert not run.evaluation("trained", "sealed").exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEMMA4VEC_HOME", str(place / "home"))
        freeze(home(), run.manifest["recipe_id"], run.run_id, "chosen")
    code, printed, _ = matrix(file, out, place, "--retry")
    assert code == 0 and printed["failed"] == []
    assert "look_again" not in load_result(run.evaluation("trained", "sealed")).settings


def test_a_final_suite_is_no_dev_suite(results: dict[str, Any], place: Path, tmp_path: Path) -> None:
    """Neither one that says so itself, nor what a matrix held out before."""
    write_suite(tmp_path / "sealed", replace(load_suite(place / "suites" / "test-b"), role="final"))
    for suite, reason in ((tmp_path / "sealed", "is a final suite"), (place / "suites" / "test-a", "was opened as")):
        final = [{"suite": str(place / "suites" / "tune")}]
        file = write_matrix(place, "wrong", dev=[{"suite": str(suite)}], final=final)
        code, _, said = matrix(file, tmp_path / "out", place)
        assert code == 2 and reason in said and "must not guide choices" in said.strip().splitlines()[-1]


def test_a_killed_matrix_goes_on_where_it_was(place: Path, tmp_path: Path) -> None:
    """kill -9 in the middle of the second cell: the first is not touched again, the second resumes."""
    file = write_matrix(place, "killed", budget={"rows": 8 * 60}, learning_rates=[0.001], minutes=100)
    out = tmp_path / "out"
    words = [sys.executable, "-m", "gemma4vec", "matrix", str(file), "--out", str(out)]
    words += ["--set", f"variables.suites={place / 'suites'}"]
    process = forked.Popen(
        words, env=os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE
    )
    second = half_trained(out, process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    steps = settled(second)
    assert 3 <= steps < 60  # its child ended with it, and not by being done
    (first,) = [run for run in list_runs(out / "runs") if run.path != second.path]
    before = (first.path / "events.jsonl").read_bytes()
    code, printed, said = matrix(file, out, place)
    assert code == 0, said
    assert [row["status"] for row in printed["rows"]] == ["done", "done"]
    assert (first.path / "events.jsonl").read_bytes() == before
    assert len(list_runs(out / "runs")) == 2
    resumed = second.events("resumed")
    assert len(resumed) == 1 and 1 <= resumed[0]["step"] <= steps
    assert second.events("step")[-1]["step"] == 60
    assert printed["rows"][0]["tokens"] > 0 and printed["rows"][1]["rows"] == 480


def settled(run: RunFolder) -> int:
    """Number of steps once nobody writes any more."""
    count = -1
    while count != len(run.events("step")):
        count = len(run.events("step"))
        time.sleep(0.5)
    return count
