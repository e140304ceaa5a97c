"""A plan of tiny models, whole: what it makes, what a kill at any step leaves, and what its figures are."""

import contextlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tiny_plan import STEPS, outline_of, write_plan_place

from gemma4vec.errors import Interrupted, WorkError
from gemma4vec.evaluation.results.result import load_result
from gemma4vec.files import home
from gemma4vec.ledger.run_folder import RunFolder, list_runs
from gemma4vec.pipeline.plan.jobs import Outline, make_outline
from gemma4vec.pipeline.plan.plan_state import PlanFolder
from gemma4vec.pipeline.plan.run_plan import run_plan
from gemma4vec.recipe.find import find_plan
from gemma4vec.recipe.plans.plan import load_plan
from gemma4vec.statistics.bootstrap import mean_interval
from gemma4vec.statistics.student import t_interval

COMMAND = "gemma4vec pipeline plan.yaml --resume"
Work = Callable[[Any], None]


class Killed(BaseException):
    """What nothing in the package catches, as it cannot catch a kill."""


class Executor:
    """Runs jobs in this process; with `died` it dies once before and once after each of them."""

    def __init__(self, died: set[str] | None = None):
        self.died = died
        self.names: list[str] = []

    def __call__(self, work: Work, argument: Any, log: Path, look: Callable[[], None]) -> int:
        name = getattr(argument, "key", None) or argument.name
        self.names.append(name + (" finally" if getattr(argument, "final", ()) else ""))
        self._die("before")
        work(argument)
        look()
        self._die("after")
        return 0

    def _die(self, when: str) -> None:
        moment = f"{when} {self.names[-1]}"
        if self.died is not None and moment not in self.died:
            self.died.add(moment)
            raise Killed


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_plan_place(tmp_path_factory.mktemp("plan"))


FINAL = {"dev": ["tune"], "final": ["test-a"]}


def suites(place: Path) -> dict[str, list[str]]:
    return {role: [str(place / "suites" / name) for name in names] for role, names in FINAL.items()}


@pytest.fixture(scope="module")
def out(place: Path) -> Path:
    return place / "out"


def tiny_outline(place: Path) -> Outline:
    return outline_of(place, suites=suites(place), budget=None, smallest_effect=0.5)


@pytest.fixture(scope="module")
def results(place: Path, out: Path) -> dict[str, Any]:
    """The whole plan."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEMMA4VEC_HOME", str(place / "home"))
        return run_plan(tiny_outline(place), out, command=COMMAND, execute=Executor())


@pytest.mark.slow
def test_a_plan_killed_before_and_after_every_job_repeats_no_finished_step(place: Path, tmp_path: Path) -> None:
    died: set[str] = set()
    results: dict[str, Any] = {}
    while not results:
        # Killed before a job, nothing of it was done; killed after it, its record was not written, and the next call
        # finds everything made.
        with contextlib.suppress(Killed):
            results = run_plan(tiny_outline(place), tmp_path / "out", command=COMMAND, execute=Executor(died))
    assert [row["status"] for row in results["steps"]] == ["done"] * 5
    jobs = ["first", "mixed/a", "mixed/b", "soup", "soup/greedy"]
    every = ["bm25", "untrained", *jobs, *(f"{job} finally" for job in jobs[1:])]
    assert died == {f"{when} {name}" for when in ("before", "after") for name in every}
    runs = list_runs(home())
    trained = [run for run in runs if "soup" not in run.run_id]
    assert (len(trained), len(runs)) == (3, 5)
    for run in trained:
        assert len(run.events("step")) == 2 and len(run.events("finished")) == 1
        assert run.manifest["status"] == "finished"
    journal = [json.loads(line) for line in (home() / "ledger.jsonl").read_text().splitlines()]
    bodies = {record["id"]: record["body"] for record in journal if record["kind"] == "look"}.values()
    # Five models and two references on dev; four and the references on final; both soups on dev at 16 dimensions.
    assert sum(not body["model"].startswith("trial-") for body in bodies) == 7 + 6 + 2


def test_the_figures_are_what_direct_calls_give(results: dict[str, Any], out: Path) -> None:
    rows = {row["key"]: row for row in results["steps"]}
    name = next(suite["name"] for suite in results["suites"] if suite["role"] == "dev")
    direct = {key: load_result(Path(row["run"]) / "evals" / "trained" / name) for key, row in rows.items()}
    direct["untrained"] = load_result(out / "references" / "untrained" / name)
    both = [direct["mixed/a"].values("ndcg@10")[1], direct["mixed/b"].values("ndcg@10")[1]]
    means = {"the mean of its 2 ingredients": np.mean(both, axis=0)}
    for key, row in rows.items():
        interval = mean_interval(direct[key].values("ndcg@10")[1])
        assert (row["dev"]["mean"], row["dev"]["low"]) == pytest.approx((interval.mean, interval.low))
    of_dev = [one for one in results["differences"] if one["role"] == "dev"]
    assert [one["key"] for one in of_dev] == ["first", "mixed/a", "mixed/b", *["soup"] * 2, *["soup/greedy"] * 2]
    for one in of_dev:
        other = one["against"][0] if one["against"] else "untrained"
        theirs_N = means.get(one["words"], direct[other].values("ndcg@10")[1])
        values_N = direct[one["key"]].values("ndcg@10")[1] - theirs_N
        assert (one["mean"], one["high"]) == pytest.approx((np.mean(values_N), t_interval(values_N).high))
        assert one["p_holm"] >= one["p"] and one["comparisons"] >= 7
    best = max(("mixed/a", "mixed/b"), key=lambda key: rows[key]["dev"]["mean"])
    assert [one["against"] for one in of_dev if "best" in one["words"]] == [[best]] * 2
    assert [(one["key"], one["role"]) for one in results["differences"][7:]] == [
        ("soup", "final"), ("soup", "final"), ("soup/greedy", "final"), ("soup/greedy", "final")
    ]  # fmt: skip
    lengths = {row["key"]: row["lengths"] for row in results["lengths"]}
    assert set(lengths) == {"soup", "soup/greedy"}
    for key, scores in lengths.items():
        assert list(scores) == ["32", "16"] and scores["32"]["mean"] == rows[key]["dev"]["mean"]
        short = load_result(out / "evals" / (key if "/" in key else f"{key}/main") / "length-16" / name)
        assert scores["16"]["mean"] == pytest.approx(short.mean["ndcg@10"])
        assert short.settings["model"]["truncated_from"] == 32


def test_the_results_are_on_disk_and_a_finished_plan_does_nothing(
    results: dict[str, Any], place: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEMMA4VEC_HOME", str(place / "home"))
    page = (out / "results.html").read_text()
    assert "mixed/a" in page and "mixed/a" in (out / "results.md").read_text()
    assert json.loads((out / "results.json").read_text())["plan"] == "tiny"
    idle = Executor()
    again = run_plan(tiny_outline(place), out, command=COMMAND, execute=idle)
    assert idle.names == [] and [row["dev"] for row in again["steps"]] == [row["dev"] for row in results["steps"]]


def test_a_training_killed_in_its_middle_goes_on_in_its_run(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outline = outline_of(place, {"first": STEPS["first"]}, set={"stages.0.budget.steps": 4})
    event = RunFolder.event

    def dies(run: RunFolder, name: str, **fields: Any) -> None:
        event(run, name, **fields)
        if name == "step" and len(run.events("step")) == 3:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(RunFolder, "event", dies)
        run_plan(outline, tmp_path / "out", command=COMMAND, execute=Executor())
    record = PlanFolder(tmp_path / "out").records()["first"]
    assert record.status == "running" and record.seconds > 0 and record.run is not None
    run_plan(outline, tmp_path / "out", command=COMMAND, execute=Executor())
    after = PlanFolder(tmp_path / "out").records()["first"]
    assert (after.run, after.status) == (record.run, "done")
    steps = [event["step"] for event in RunFolder(Path(record.run)).events("step")]
    assert steps[:3] == [1, 2, 3] and steps[-1] == 4 and 1 not in steps[3:]  # not from the start


def test_a_failed_job_stops_the_plan_and_is_tried_again(place: Path, tmp_path: Path) -> None:
    outline = outline_of(place, {"first": STEPS["first"]})

    def fails(work: Work, argument: Any, log: Path, look: Callable[[], None]) -> int:
        if hasattr(argument, "key"):
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text("error: the loss is not finite\n")
            return 1
        work(argument)
        return 0

    with pytest.raises(
        WorkError, match=r"^first: the loss is not finite; what is finished is kept; go on with: gemma4vec"
    ):
        run_plan(outline, tmp_path / "out", command=COMMAND, execute=fails)
    assert PlanFolder(tmp_path / "out").records()["first"].reason == "the loss is not finite"
    found = run_plan(outline, tmp_path / "out", command=COMMAND, execute=Executor())
    assert [row["status"] for row in found["steps"]] == ["done"]


def test_a_signal_leaves_a_plan_that_goes_on(place: Path, tmp_path: Path) -> None:
    outline = outline_of(place, {"first": STEPS["first"]}, budget={"minutes": 0.2})

    def stopped(work: Work, argument: Any, log: Path, look: Callable[[], None]) -> int:
        if hasattr(argument, "key"):
            os.kill(os.getpid(), signal.SIGTERM)
        work(argument)
        return 0

    with pytest.raises(Interrupted) as caught:
        run_plan(outline, tmp_path / "out", command=COMMAND, execute=stopped)
    assert caught.value.exit_code == 75 and str(caught.value) == f"stopped by SIGTERM; go on with: {COMMAND}"
    record = PlanFolder(tmp_path / "out").records()["first"]
    assert record.status == "running" and record.minutes is not None and 0 < record.minutes < 0.2


@pytest.mark.slow
def test_the_shipped_plan_runs_whole_when_everything_is_tiny(place: Path, tmp_path: Path) -> None:
    file = find_plan("embeddinggemma/plan")
    tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    head = {"widths": [48, 32]}
    every = {"model.base": str(place / "base"), "model.head": head, "model.max_tokens": 64, "model.dtype": "fp32"}
    every |= {"stages.0.layout": {"row_tokens": 64, "tokens_per_forward": 512, "compile": False}}
    every |= {"stages.0.budget": {"steps": 2}, "stages.0.optimizer.warmup_steps": 1}
    texts = {"stages.0.data": [{"name": "one", "path": str(place / "one.jsonl")}]}
    contrast = {"stages.0.batch": {"rows": 4}, "stages.0.task.terms": [{"kind": "nce", "matryoshka": [16]}]}
    contrast |= {"stages.0.task.hard_negatives": 0}
    denoising = {"model.head": None, "stages.0.task.sentinels": [f"<0x{byte:02X}>" for byte in range(1, 30)]}
    denoising |= {"stages.0.task.held_out": 4, "stages.0.batch": {"rows": 4, "document_tokens": 32}}
    for seed, (name, step) in enumerate(tree["steps"].items()):
        if "train" in step or "quantize" in step:
            step["set"] = step.get("set", {}) | texts | {"seed": seed} | (contrast if name != "adapt" else denoising)
    changes = {"set": every, "suites": suites(place), "lengths": [16], "budget": None, "variables": {}}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(tree | changes, sort_keys=False), encoding="utf-8")
    outline = make_outline(load_plan(tmp_path / "plan.yaml"), file.parent)
    found = run_plan(outline, tmp_path / "out", command=COMMAND, execute=Executor())
    assert [row["key"] for row in found["steps"]] == list(outline.jobs)
    assert {row["status"] for row in found["steps"]} == {"done"} and len(found["differences"]) > len(outline.jobs)
    assert all(set(row["lengths"]) == {"32", "16"} for row in found["lengths"])
