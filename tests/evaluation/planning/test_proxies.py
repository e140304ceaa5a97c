"""Which figures of runs are proxies, and what `gemma4vec agreement` says of them."""

import json
from pathlib import Path

import pytest

from gemma4vec.cli.main import execute
from gemma4vec.errors import InputError
from gemma4vec.evaluation.planning.proxies import judge_proxies
from gemma4vec.files import home, write_json
from gemma4vec.ledger.ledger import new_id, now, open_ledger
from gemma4vec.ledger.recording import record_evaluation, record_run
from gemma4vec.ledger.records import owner_ids
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.statistics.agreement import agreement

FINAL = [0.30, 0.35, 0.40, 0.45, 0.50, 0.55, 0.60, 0.65]
COMPACT = [0.31, 0.34, 0.44, 0.43, 0.52, 0.53, 0.63, 0.66]  # one pair turned round
STS = [0.7, 0.5, 0.6, 0.5, 0.8, 0.4, 0.6, 0.5]


def add(run: RunFolder, suite: str, mean: dict[str, float], model: str = "trained") -> None:
    settings = {
        "model_fingerprint": f"{run.run_id}-{model}",
        "suite": {"fingerprint": suite * 4},
        "created": now(),
        "look": new_id(),
        "run": owner_ids(model, run),
    }
    folder = run.evaluation(model, suite)
    write_json(folder / "metrics.json", {"model": model, "suite": suite, "mean": mean, "settings": settings})
    record_evaluation(folder)


@pytest.fixture
def runs() -> list[RunFolder]:
    made = []
    for number, score in enumerate(FINAL):
        text = f"name: r\nseed: {number}\nstages:\n- task: {{temperature: 0.05}}\n"
        run = RunFolder.create(home(), f"r{number}", text, recipe_id=f"id{number}", status="finished", seed=number)
        for step in range(1, 41):
            run.event("step", stage=0, step=step, loss=9.0 if step < 39 else 3.0 - score)
        run.event("evaluation", stage=0, step=40, suite="dev", low=0.0, high=1.0, **{"ndcg@10": score / 2})
        record_run(run)
        add(run, "final", {"ndcg@10": score, "map": 1 - score})
        add(run, "compact", {"ndcg@10": COMPACT[number]})
        add(run, "sts", {"spearman": STS[number]})
        add(run, "final", {"ndcg@10": 0.1 * number % 0.3}, "bm25")
        made.append(run)
    return made


def test_every_figure_is_judged_as_the_function_judges_it(runs: list[RunFolder]) -> None:
    with open_ledger(home()) as ledger:
        judged = {one.proxy.name: one for one in judge_proxies(ledger, ["final"], "ndcg@10")}
    assert set(judged) == {"training loss", "dev ndcg@10 (in training)", "compact ndcg@10", "sts spearman"}
    expected = agreement(COMPACT, FINAL, confidence=1 - 0.05 / 4)  # four were asked
    assert judged["compact ndcg@10"].found == expected and expected.pairs.denied == 1
    assert judged["sts spearman"].found == agreement(STS, FINAL, confidence=1 - 0.05 / 4)
    loss = judged["training loss"]  # lower is better, and only the end counts
    assert (loss.found.tau.value, loss.proxy.values[runs[0].run_id]) == (1.0, pytest.approx(2.7))
    assert loss.note == "corrected for 4 proxies: whoever takes the best of them has chosen"
    assert loss.promotion.allowed and not judged["sts spearman"].promotion.allowed
    assert list(judged)[-1] == "sts spearman"  # the most faithful first


def test_one_proxy_alone_is_corrected_only_where_it_was_chosen_before(runs: list[RunFolder]) -> None:
    with open_ledger(home()) as ledger:
        (alone,) = judge_proxies(ledger, ["final"], "ndcg@10", only=["compact"])
        (chosen,) = judge_proxies(ledger, ["final"], "ndcg@10", only=["compact"], of_all=True)
    assert (alone.found.confidence, alone.note) == (0.95, "")
    assert chosen.found.confidence == 1 - 0.05 / 4 and chosen.found.tau.low <= alone.found.tau.low


def test_runs_without_both_figures_do_not_count(runs: list[RunFolder]) -> None:
    extra = RunFolder.create(home(), "x", "name: x\n", recipe_id="x", status="finished")
    record_run(extra)
    add(extra, "final", {"ndcg@10": 0.9})
    with open_ledger(home()) as ledger:
        judged = {one.proxy.name: one for one in judge_proxies(ledger, ["final"], "ndcg@10", only=["compact"])}
        assert judged["compact ndcg@10"].found.runs == len(FINAL)
        with pytest.raises(InputError, match="no run was evaluated on a suite 'nowhere'"):
            judge_proxies(ledger, ["nowhere"], "ndcg@10")
        with pytest.raises(InputError, match="no proxy has values for 2 or more"):
            judge_proxies(ledger, ["final"], "ndcg@10", only=["nothing"])


def test_a_run_that_the_ledger_does_not_have_does_not_count(runs: list[RunFolder]) -> None:
    """Its results were recorded here, its training elsewhere."""
    guest = RunFolder.create(home(), "guest", "name: x\n", recipe_id="x", status="finished")
    for run in [*runs, guest]:
        for model, score in (("trained", 0.9), ("checkpoint-0-00000020", 0.8), ("checkpoint-0-00000040", 0.9)):
            if model != "trained" or run is guest:
                add(run, "final", {"ndcg@10": score}, model)
                add(run, "compact", {"ndcg@10": score}, model)
    with open_ledger(home()) as ledger:
        assert judge_proxies(ledger, ["final"], "ndcg@10", only=["compact"])[0].found.runs == len(runs)
        of_checkpoints = judge_proxies(ledger, ["final"], "ndcg@10", only=["compact"], checkpoints=True)
    assert of_checkpoints[0].found.runs == 2 * len(runs)


def test_losses_of_different_objectives_are_called_what_they_are(runs: list[RunFolder]) -> None:
    text = "name: r\nstages:\n- task: {temperature: 0.5}\n"
    (runs[0].path / "recipe.yaml").write_text(text, encoding="utf-8")
    runs[0].update_manifest(status="finished again")
    record_run(RunFolder.open(runs[0].path))
    with open_ledger(home()) as ledger:
        (loss,) = judge_proxies(ledger, ["final"], "ndcg@10", only=["training loss"])
    assert loss.note == "the runs differ in task, so their losses are not comparable"


def test_the_command_prints_and_refuses(runs: list[RunFolder], capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["agreement", "--suite", "final", "--control", runs[0].run_id, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    compact = next(one for one in printed["proxies"] if one["proxy"] == "compact ndcg@10")
    assert compact["may_promote"] is True and compact["against_control"]["proxy_yes"] == 7
    assert execute(["agreement", "--suite", "final"]) == 0
    assert "cannot promote" in capsys.readouterr().out
    assert execute(["agreement"]) == 2
    assert (
        "--suite NAME is missing: name the suite to predict; the ledger has: compact, final, sts"
        in capsys.readouterr().err
    )


def test_a_proxy_under_the_threshold_cannot_promote(runs: list[RunFolder], capsys: pytest.CaptureFixture[str]) -> None:
    run = runs[-1].run_id
    assert execute(["runs", "decide", run, "keep", "STS says so", "--by", "sts", "--on", "final"]) == 2
    assert "sts spearman cannot promote: Kendall tau" in capsys.readouterr().err
    assert execute(["runs", "decide", run, "keep", "compact", "--by", "compact", "--on", "final", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["promoted_by"]["proxy"] == "compact ndcg@10"
    assert execute(["runs", "decide", run, "keep", "why", "--by", "sts"]) == 2


def test_checkpoints_are_judged_by_what_was_known_then(runs: list[RunFolder]) -> None:
    run = runs[0]
    for number, step in enumerate((10, 20, 39, 40)):
        add(run, "compact", {"ndcg@10": number / 10}, f"checkpoint-0-{step:08d}")
        add(run, "final", {"ndcg@10": number / 20}, f"checkpoint-0-{step:08d}")
    with open_ledger(home()) as ledger:
        judged = {one.proxy.name: one for one in judge_proxies(ledger, ["final"], "ndcg@10", checkpoints=True)}
        finished = {one.proxy.name: one for one in judge_proxies(ledger, ["final"], "ndcg@10")}
    assert finished["compact ndcg@10"].found.runs == len(FINAL)  # checkpoints are no finished runs
    compact, loss = judged["compact ndcg@10"], judged["training loss"]
    assert (compact.found.tau.value, compact.found.runs) == (1.0, 4)
    assert "checkpoints of 1 runs are not independent" in compact.note
    by_step = {int(unit[-8:]): value for unit, value in loss.proxy.values.items()}
    assert by_step == {10: 9.0, 20: 9.0, 39: pytest.approx(2.7), 40: pytest.approx(2.7)}
    # Before step 40 nothing had been evaluated during training.
    assert "dev ndcg@10 (in training)" not in judged


def test_detectable_before_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gemma4vec.data.suites.retrieval import RetrievalSuite, write_suite
    from gemma4vec.text.prompts import Document

    made = RetrievalSuite("s", ["d"], [Document("x")], ["q1", "q2"], ["a", "b"], {"q1": {"d": 1}, "q2": {"d": 1}})
    write_suite(tmp_path / "s", made)
    assert execute(["runs", "detectable", str(tmp_path / "s"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["queries"] == 2
