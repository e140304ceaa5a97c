"""A training with a stop rule: it ends where the rule says, is finished then, and is otherwise the training it was."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import write_tiny
from tiny_run import RECIPE, rows, write_rows_file

from gemma4vec.cli.main import execute
from gemma4vec.data.suites.retrieval import RetrievalSuite, load_suite, write_suite
from gemma4vec.errors import InputError
from gemma4vec.evaluation.results.result import Result, load_result, save_result
from gemma4vec.files import home
from gemma4vec.ledger.ledger import open_ledger
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.recipe.load import load_recipe
from gemma4vec.recipe.stop_rule import StopRule
from gemma4vec.report.run_page import write_report
from gemma4vec.training import run as training_run
from gemma4vec.training.engine.checkpoint import latest_checkpoint, trained_weights
from gemma4vec.training.monitoring.stop_rule import LoadedStopRule, StopRuleMonitor
from gemma4vec.training.run import recipe_of, start_run, train_run

METRICS = ("ndcg@10", "recall@100", "mrr@10", "map")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, rows, a dev suite of the same texts, and results on it that nobody and anybody is below."""
    folder = tmp_path_factory.mktemp("stop")
    base = write_tiny(folder / "base", "llama", layers=2)
    (folder / "recipe.yaml").write_text(RECIPE.format(base=base, rows=write_rows_file(folder / "rows.jsonl")))
    for role in ("dev", "final"):
        write_suite(folder / f"words-{role}", suite(role))
    save(folder / "perfect", 1.0, suite("dev"))
    save(folder / "nothing", 0.0, suite("dev"))
    return folder


def suite(role: Any) -> RetrievalSuite:
    texts = rows()
    return RetrievalSuite(
        f"words-{role}",
        [f"d{i:02d}" for i in range(len(texts))],
        [row.pos[0] for row in texts],
        [f"q{i:02d}" for i in range(len(texts))],
        [row.query for row in texts],
        {f"q{i:02d}": {f"d{i:02d}": 1} for i in range(len(texts))},
        role=role,
    )


def save(folder: Path, value: float, of: RetrievalSuite) -> None:
    """A result with the same scores for every query."""
    per_query = {of.name: {key: dict.fromkeys(METRICS, value) for key in of.query_ids}}
    save_result(Result(folder.name, of.name, per_query, {"suite": {"fingerprint": of.fingerprint}}), folder, [])


def changes(place: Path, reference: object, **stop: object) -> list[str]:
    told = {"reference": str(reference), "smallest_effect": 0.0, "at_shares": [0.34, 0.67], **stop}
    return [
        f"stages.0.evaluation.suite={place / 'words-dev'}",
        "stages.0.evaluation.max_queries=null",
        f"stages.0.evaluation.stop={json.dumps(told)}",
    ]


def trained(place: Path, out: Path, *overrides: str) -> RunFolder:
    run = start_run(load_recipe(place / "recipe.yaml", list(overrides)), out)
    train_run(run)
    return run


def last_weights(run: RunFolder) -> dict[str, torch.Tensor]:
    checkpoint = latest_checkpoint(run.checkpoints / "0-contrast")
    assert checkpoint is not None
    return trained_weights(checkpoint)


@pytest.fixture(scope="module")
def plain(place: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The same training without a rule, which kept its weights where the others look."""
    return trained(place, tmp_path_factory.mktemp("plain"), "stages.0.evaluation.snapshot_at_shares=[0.34,0.67]")


def test_a_hopeless_training_ends_at_the_first_look(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = changes(place, place / "perfect")
    assert execute(["train", str(place / "recipe.yaml"), *told, "--out", str(tmp_path), "--json"]) == 0
    printed = capsys.readouterr()
    ended = json.loads(printed.out)["ended"]
    assert (ended["by"], ended["stage"], ended["step"]) == ("stop rule", 0, 2)
    assert "look 1 of 2" in printed.err and "stopped, since" in printed.err
    run = RunFolder(Path(json.loads(printed.out)["run"]))
    # Finished, not failed: the last checkpoint is the model, and the folder says why there are no more steps.
    assert run.manifest["status"] == "finished" and run.manifest["ended"] == ended
    assert run.events("finished")[0]["exported"] == {"checkpoint": "last", "step": 2}
    assert [event["step"] for event in run.events("step")] == [1, 2]
    (look,) = run.events("look")
    assert look["stopped"] and look["high"] < 0.0 and look["confidence"] == pytest.approx(0.975)
    # The look is a result like that of a kept checkpoint, with every query's score.
    result = load_result(run.evaluation("checkpoint-0-00000002", "words-dev"))
    assert result.mean["ndcg@10"] == pytest.approx(look["score"]) and len(result.keys) == 24
    decision = json.loads((run.path / "decision.json").read_text())["body"]
    assert decision["decision"] == "drop" and decision["words"] == f"stop rule: {ended['reason']}"
    with open_ledger(home()) as ledger:
        assert [row["words"] for row in ledger.rows("SELECT words FROM decisions")] == [decision["words"]]
        assert ledger.value("SELECT count(DISTINCT id) FROM looks") == 1
    page = write_report(run.path, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Set before the run: ndcg@10 on words-dev" in page and "It ended the training" in page
    assert "the stop rule ended the training after step 2" in page
    assert execute(["train", "--resume", str(run.path)]) == 2  # it is finished


@pytest.mark.slow  # test_distributed.py has two processes in every run of the tests
def test_two_processes_look_once_and_end_together(place: Path, tmp_path: Path) -> None:
    words = [str(place / "recipe.yaml"), *changes(place, place / "perfect"), "--out", str(tmp_path), "--json"]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "gemma4vec", "train"]
    paths = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, *launch, *words],
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=300,
    )
    told = json.loads(done.stdout)
    assert (told["ended"]["by"], told["ended"]["step"]) == ("stop rule", 2)
    run = RunFolder(Path(told["run"]))
    assert run.manifest["status"] == "finished"
    assert [len(run.events(name)) for name in ("look", "stopped", "stop_rule", "step")] == [1, 1, 1, 2]
    with open_ledger(home()) as ledger:
        assert [row["words"] for row in ledger.rows("SELECT words FROM decisions")] == [
            f"stop rule: {told['ended']['reason']}"
        ]


def test_a_rule_that_stops_nothing_changes_nothing(place: Path, plain: RunFolder, tmp_path: Path) -> None:
    run = trained(place, tmp_path, *changes(place, place / "nothing"))
    assert run.manifest["ended"] == {"by": "budget"} and not (run.path / "decision.json").exists()
    assert [(look["step"], look["stopped"]) for look in run.events("look")] == [(2, False), (4, False)]
    expected, found = last_weights(plain), last_weights(run)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    # The looks are known to the ledger as the kept weights would be.
    assert execute(["eval", str(plain.path), "--checkpoints", "--suite", str(place / "words-dev")]) == 0
    prints = {
        step: load_result(one.evaluation(f"checkpoint-0-{step:08d}", "words-dev")).settings["model_fingerprint"]
        for one, step in ((plain, 2), (plain, 4))
    }
    assert prints[2] == load_result(run.evaluation("checkpoint-0-00000002", "words-dev")).settings["model_fingerprint"]
    assert prints[4] == load_result(run.evaluation("checkpoint-0-00000004", "words-dev")).settings["model_fingerprint"]


def test_a_look_that_was_cut_off_is_taken_when_the_run_goes_on(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rule stays what it was, also where its reference has gone meanwhile."""
    save(tmp_path / "perfect", 1.0, suite("dev"))
    run = start_run(load_recipe(place / "recipe.yaml", changes(place, tmp_path / "perfect")), tmp_path / "runs")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(StopRuleMonitor, "check", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_run(run)
    assert not run.events("look") and [event["step"] for event in run.events("step")] == [1, 2]
    (tmp_path / "perfect").rename(tmp_path / "gone")
    train_run(run)
    assert [event["step"] for event in run.events("step")] == [1, 2]  # the look came first, and ended it
    assert run.manifest["ended"]["step"] == 2 and run.manifest["status"] == "finished"


def test_a_look_is_not_taken_again_where_its_result_outlived_a_kill(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between a look and the next checkpoint, the steps are done again, the evaluation is not."""
    told = [*changes(place, place / "nothing", at_steps=[3], at_shares=[]), "stages.0.evaluation.checkpoint_seconds=99"]
    run = start_run(load_recipe(place / "recipe.yaml", told), tmp_path)
    real = StopRuleMonitor.check

    def killed(*asked: Any) -> None:
        real(*asked)
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(StopRuleMonitor, "check", killed)
        with pytest.raises(RuntimeError):
            train_run(run)
    file = run.evaluation("checkpoint-0-00000003", "words-dev") / "metrics.json"
    before = file.stat().st_mtime_ns
    train_run(run)
    assert [event["step"] for event in run.events("step")] == [1, 2, 3, 1, 2, 3, 4, 5, 6]
    assert [event["step"] for event in run.events("look")] == [3] and file.stat().st_mtime_ns == before
    with open_ledger(home()) as ledger:
        assert ledger.value("SELECT count(DISTINCT id) FROM looks") == 1


def test_a_rule_that_was_changed_half_way_is_refused(place: Path, tmp_path: Path) -> None:
    run = trained(place, tmp_path, *changes(place, place / "nothing"))
    recipe = run.path / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("smallest_effect: 0.0", "smallest_effect: 0.5"))
    with pytest.raises(InputError, match=r"stages\.0\.evaluation\.stop: it is not the rule any more"):
        train_run(run)


def test_a_stop_that_was_killed_before_its_export_is_one_when_it_goes_on(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start_run(load_recipe(place / "recipe.yaml", changes(place, place / "perfect")), tmp_path)

    def killed(*_: object, **__: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(training_run, "save_model", killed)
        with pytest.raises(RuntimeError):
            train_run(run)
    train_run(run)
    assert run.manifest["ended"]["by"] == "stop rule" and len(run.events("stopped")) == 1
    assert run.events("finished")[-1]["exported"]["step"] == 2


def test_later_stages_are_not_trained_and_the_best_look_is_exported(place: Path, tmp_path: Path) -> None:
    text = (place / "recipe.yaml").read_text()
    stage = text[text.index("  - name: contrast") :]
    (tmp_path / "two.yaml").write_text(text + stage.replace("contrast", "second", 1))
    told = [*changes(place, place / "perfect"), "stages.0.evaluation.every_steps=1", "stages.0.evaluation.export=best"]
    run = start_run(load_recipe(tmp_path / "two.yaml", told), tmp_path / "runs")
    train_run(run)
    assert {event["stage"] for event in run.events("step")} == {0}
    exported = run.events("finished")[-1]["exported"]
    assert exported["checkpoint"] == "best" and exported["step"] in (1, 2)
    # An evaluation that is due where the rule looks is taken once.
    assert [event["step"] for event in run.events("evaluation")] == [1, 2]


def test_another_run_is_a_reference_at_its_end_and_at_the_same_places(
    place: Path, plain: RunFolder, tmp_path: Path
) -> None:
    at_end = trained(place, tmp_path, *changes(place, plain.path, smallest_effect=-0.9))
    known = load_result(plain.evaluation("trained", "words-dev"))  # made for the rule, left for others
    assert [look["reference"] for look in at_end.events("look")] == [pytest.approx(known.mean["ndcg@10"])] * 2
    same = changes(place, plain.path, smallest_effect=-0.9, reference_at="same_place")
    run = trained(place, tmp_path, *same)
    for look in run.events("look"):  # the very same weights, so no difference at all
        assert look["score"] == pytest.approx(look["reference"], abs=1e-6) and look["difference"] == pytest.approx(0.0)
    assert len(run.events("look")) == 2
    assert run.manifest["parents"] == []  # it is compared with, not built on


def test_bm25_is_a_reference(place: Path, tmp_path: Path) -> None:
    run = trained(place, tmp_path, *changes(place, "bm25", smallest_effect=-0.9))
    known = load_result(home() / "evals" / "bm25" / "words-dev")
    assert [look["reference"] for look in run.events("look")] == [pytest.approx(known.mean["ndcg@10"])] * 2


def refusals(place: Path) -> list[tuple[list[str], str]]:
    perfect = str(place / "perfect")
    final = [f"stages.0.evaluation.suite={place / 'words-final'}"]
    part = ["stages.0.evaluation.max_queries=10"]
    return [
        (changes(place, perfect) + final, "words-final is a final suite"),
        (changes(place, perfect) + part, "which has other queries or documents"),
        (changes(place, "no-such-run"), "stages.0.evaluation.stop.reference: no run 'no-such-run'"),
        (changes(place, perfect, reference_at="same_place"), "a saved result, which has one place"),
        (changes(place, place / "base"), "is not a run folder"),
        (["stages.0.evaluation.suite=null", *changes(place, perfect)[1:]], "there is no suite to look at"),
    ]


@pytest.mark.parametrize("number", range(6))
def test_what_cannot_be_asked_is_refused_before_weights_are_loaded(
    place: Path, tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, said = refusals(place)[number]

    def loaded(*_: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(training_run, "Trainer", loaded)
    run = start_run(load_recipe(place / "recipe.yaml", told), tmp_path)
    with pytest.raises(InputError) as error:
        train_run(run)
    assert said in str(error.value) and str(error.value).startswith("stages.0.evaluation.stop")


def test_a_reference_without_weights_at_the_places_is_refused(place: Path, plain: RunFolder, tmp_path: Path) -> None:
    told = changes(place, plain.path, at_shares=[0.5], reference_at="same_place")
    run = start_run(load_recipe(place / "recipe.yaml", told), tmp_path)
    with pytest.raises(InputError, match=r"kept no weights after step 3 of stage 0 \(it has 2, 4, 6\)"):
        train_run(run)


def test_a_suite_that_changed_half_way_is_refused(place: Path, tmp_path: Path) -> None:
    write_suite(tmp_path / "words-dev", suite("dev"))
    told = [*changes(place, place / "nothing"), f"stages.0.evaluation.suite={tmp_path / 'words-dev'}"]
    run = trained(place, tmp_path / "runs", *told)
    other = load_suite(tmp_path / "words-dev")
    other.queries[0] = "another query"
    write_suite(tmp_path / "words-dev", other)
    with pytest.raises(InputError, match="not the suite any more that the rule was set for"):
        train_run(run)


def test_the_dry_run_shows_the_rule_and_what_it_will_see(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = changes(place, "bm25", smallest_effect=0.02)
    assert execute(["train", str(place / "recipe.yaml"), *told, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "smallest useful effect +0.02" in printed and "Smallest detectable effect at a look: 0." in printed
    assert not (home() / "evals").exists()  # nothing was evaluated for it
    assert execute(["train", str(place / "recipe.yaml"), *changes(place, "no-such-run"), "--dry-run"]) == 2
    assert "stages.0.evaluation.stop.reference" in capsys.readouterr().err


def test_when_looks_are_due() -> None:
    shares = StopRule(reference="r", smallest_effect=0.0, at_shares=(0.1, 0.5))
    rule = LoadedStopRule(shares, suite("dev"), [])
    assert [step for step in range(1, 11) if rule.due(step, 10, 0)] == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert [rule.due(step, 10, 1) for step in (1, 4, 5, 9, 10)] == [None, None, 2, 2, None]
    assert rule.due(1, None, 0) is None  # a budget in minutes: nobody knows how long it is
    assert rule.due(3, 20, 0) == 1  # known behind the first look's place, step 2: it is taken now
    steps = LoadedStopRule(StopRule(reference="r", smallest_effect=0.0, at_steps=(2, 30)), suite("dev"), [])
    assert steps.due(2, None, 0) == 1 and steps.due(3, None, 1) is None and steps.due(20, 20, 1) is None


def test_an_old_checkpoint_without_looks_can_be_read(place: Path, plain: RunFolder) -> None:
    checkpoint = latest_checkpoint(plain.checkpoints / "0-contrast")
    assert checkpoint is not None
    file = checkpoint / "progress.json"
    values = json.loads(file.read_text())
    file.write_text(json.dumps({key: value for key, value in values.items() if key not in ("looks", "stopped")}))
    (checkpoint / "checksums.json").unlink()  # an old one has none
    assert training_run.read_progress(checkpoint).stopped is None
    assert recipe_of(plain).stages[0].evaluation.stop is None
