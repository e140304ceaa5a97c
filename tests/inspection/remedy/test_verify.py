"""A claim from training to verdict: kept with the run, asked once, spent, and refused in one line where it is not."""

from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted_suite import DIMENSION, PlantedModel, planted_suite

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.errors import InputError
from gemma4vec.evaluation.scoring.bm25_model import Bm25Model
from gemma4vec.files import home
from gemma4vec.inspection.inspect import inspect
from gemma4vec.inspection.inspected import Subject
from gemma4vec.inspection.remedy.claims import claim_of
from gemma4vec.inspection.remedy.verify import _held, verify
from gemma4vec.ledger.ledger import open_ledger
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.recipe.load import load_recipe
from gemma4vec.recipe.stop_rule import Claim
from gemma4vec.training.run import start_run

SUITE = planted_suite(160)
RULE = "digits is yes"


class Mended(PlantedModel):
    """Answers the queries with a digit too."""

    name = "mended"

    def __init__(self, fingerprint: str = "mended") -> None:
        super().__init__(fingerprint)

    def _vector(self, text: str) -> np.ndarray:
        return super()._vector(text.replace("7", "x"))


def claim(**changes: Any) -> Claim:
    known = {
        "slice": RULE,
        "suite": "/a/folder",
        "suite_fingerprint": SUITE.fingerprint,
        "smallest_effect": 0.3,
    }
    return Claim(**{**known, **changes})


def trained(model: PlantedModel, tmp_path: Path, with_claim: Claim | None) -> Subject:
    """A run that began with this claim."""
    (tmp_path / "rows.jsonl").write_text('{"query": "a", "pos": ["b"]}\n')
    stage = {"data": [{"name": "pairs", "path": str(tmp_path / "rows.jsonl")}], "budget": {"steps": 2}}
    recipe = load_recipe({"name": "small", "stages": [stage]}).model_copy(update={"claim": with_claim})
    return Subject(model, "run", run=start_run(recipe))


@pytest.fixture
def mended(tmp_path: Path) -> Subject:
    return trained(Mended(), tmp_path, claim())


BEFORE = Subject(PlantedModel(), "before")


def check(runs: Sequence[Subject], suite: RetrievalSuite = SUITE, **how: Any) -> Any:
    return verify(runs, how.pop("against", [BEFORE]), suite, **how)


def test_a_remedy_that_helps_is_kept_once(mended: Subject, tmp_path: Path) -> None:
    control = trained(PlantedModel("control"), tmp_path, None)
    found = check([mended], control=[control])
    assert found.judgment.verdict == "verified" and found.decision == "keep" and found.opened == 1
    assert found.detectable < 0.3 and not found.notes and found.alone == []
    lines = found.lines()
    assert "as slice 1 that was opened on planted;" in lines[1] and found.as_json()["suite"] == "planted"
    assert "sealed queries show gains from" in lines[0] and lines[-1] == "verified (decision: keep)"
    with open_ledger(home()) as ledger:
        kept = ledger.rows("SELECT metric, family, verdict FROM comparisons")
        decided = ledger.rows("SELECT decision, words FROM decisions")
    assert kept == [{"metric": f"ndcg@10 in {RULE}", "family": 1, "verdict": "verified"}]
    assert decided[0]["decision"] == "keep" and decided[0]["words"].startswith(f"verified on {RULE} of planted")
    with pytest.raises(InputError, match=r"spent on planted: verified on 20.*gain \+1.*needs other queries"):
        check([mended])
    slices = inspect(BEFORE, SUITE, tmp_path / "out", against=Subject(Bm25Model(), "bm25")).slices
    assert {one.rule: one.status for one in slices}[RULE] == "spent"


def test_one_that_does_nothing_is_not_and_two_seeds_are_a_mean(tmp_path: Path) -> None:
    runs = [trained(PlantedModel(str(number)), tmp_path, claim()) for number in (1, 2)]
    found = check(runs)
    assert found.judgment.verdict == "refuted" and found.decision == "drop"
    assert found.notes == ["no control arm: what another training of as many rows gains is unknown"]
    assert len(found.runs) == 2 and found.judgment.inside.mean == 0.0


def test_each_run_is_judged_alone_with_those_at_its_place(tmp_path: Path) -> None:
    runs = [trained(Mended("m1"), tmp_path, claim()), trained(PlantedModel("p1"), tmp_path, claim())]
    befores = [BEFORE, Subject(PlantedModel("p2"), "before")]
    found = check(runs, against=befores, control=[trained(PlantedModel("p3"), tmp_path, None)])
    first, second = found.alone
    assert first.verdict == "verified" and second.verdict == "refuted" and second.inside.mean == 0.0
    assert found.judgment.inside.mean == pytest.approx(first.inside.mean / 2)
    assert first.over_control is not None and first.over_control.mean == pytest.approx(first.inside.mean)
    assert [one["verdict"] for one in found.as_json()["alone"]] == ["verified", "refuted"]
    assert f"each run alone: {first.inside.mean:+.3f} verified, +0.000 refuted" in found.lines()


def test_too_few_sealed_queries_open_nothing(tmp_path: Path) -> None:
    small = trained(Mended(), tmp_path, claim(smallest_effect=0.001))
    with pytest.raises(
        InputError, match=r"show gains from 0\.\d+, and the claim is 0\.001: .* train again with a larger"
    ):
        check([small])
    with open_ledger(home()) as ledger:
        assert ledger.rows("SELECT 1 FROM records WHERE kind = 'exposure'") == []


def test_a_claim_that_was_changed_after_training(mended: Subject) -> None:
    run = mended.run
    assert run is not None and claim_of(run) == claim()
    text = (run.path / "recipe.yaml").read_text()
    (run.path / "recipe.yaml").write_text(text.replace("smallest_effect: 0.3", "smallest_effect: 0.2"))
    run.update_manifest(claim=claim(smallest_effect=0.2).model_dump(mode="json"))
    with pytest.raises(InputError, match="is not the one that its training began with"):
        check([mended])


def test_runs_without_a_claim_or_a_ledger(mended: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="has no claim; train a recipe that gemma4vec inspect remedy wrote"):
        check([trained(Mended(), tmp_path, None)])
    with pytest.raises(InputError, match="run is no run, so it has no claim"):
        check([Subject(Mended(), "run")])
    other = trained(Mended("2"), tmp_path, claim(smallest_effect=0.2))
    with pytest.raises(InputError, match="run has another claim than run"):
        check([mended, other])
    monkeypatch.setenv("GEMMA4VEC_HOME", str(tmp_path / "elsewhere"))
    with pytest.raises(InputError, match="does not know the run"):
        check([mended])


def test_other_suites_and_the_same_model(mended: Subject) -> None:
    with pytest.raises(InputError, match="planted is not the suite of the claim"):
        check([mended], planted_suite(160, seed=3))
    with pytest.raises(InputError, match="run is the same model as one of B; name another for --against"):
        check([mended], against=[mended])
    assert DIMENSION == 32


def _hold(key: str, ready: Any, done: Any) -> None:
    with _held(key, RULE):
        ready.set()
        done.wait(60)


def test_two_processes_at_once(mended: Subject) -> None:
    from gemma4vec.inspection.exposures import remedy_key

    context = get_context("fork")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(remedy_key(RULE, SUITE.fingerprint), ready, done))
    other.start()
    try:
        assert ready.wait(60)
        with pytest.raises(InputError, match="another process verifies a remedy for 'digits is yes'; wait for it"):
            check([mended])
    finally:
        done.set()
        other.join()
    assert RunFolder.open(mended.run.path).run_id  # type: ignore[union-attr]
