"""Ranks of every judged document against a plain sort, and steps that are computed once."""

import numpy as np
import pytest
from planted_suite import PlantedModel, planted_suite

from gemma4vec.evaluation.scoring.bm25_model import Bm25Model
from gemma4vec.evaluation.scoring.ranking import Ranking
from gemma4vec.inspection.reading import Reading, judged_ranks, read_model
from gemma4vec.inspection.steps import Steps, known_step


def test_ranks_are_those_of_a_plain_sort() -> None:
    generator = np.random.default_rng(0)
    scores_NM = generator.normal(size=(7, 30))
    order_NM = np.argsort(-scores_NM, axis=1)[:, :12]
    order_NM[3, 5:] = -1
    qrels = {f"q{n}": {f"d{m}": int(grade) for m, grade in enumerate(generator.integers(0, 3, 30))} for n in range(7)}
    ids = [f"d{m}" for m in range(30)]
    ranking = Ranking(order_NM, np.take_along_axis(scores_NM, order_NM, 1).astype(np.float32))
    found = judged_ranks(ranking, list(qrels), ids, qrels)
    assert len(found["rank"]) == 7 * 30
    for n, m, grade, rank, score in zip(*(found[name].tolist() for name in found), strict=True):
        ranked = order_NM[n].tolist()
        assert grade == qrels[f"q{n}"][f"d{m}"]
        assert rank == (ranked.index(m) + 1 if m in ranked else 0)
        assert np.isnan(score) if rank == 0 else score == pytest.approx(scores_NM[n, m], abs=1e-6)


def test_best_right_document() -> None:
    made = Reading(
        np.array(["ndcg@10"]),
        np.zeros((1, 3)),
        np.zeros((3, 1), dtype=np.int64),
        np.zeros((3, 1)),
        query=np.array([0, 0, 0, 1, 2]),
        document=np.array([0, 1, 2, 0, 1]),
        grade=np.array([1, 2, 0, 1, 1]),
        rank=np.array([40, 7, 1, 0, 1000]),
        score=np.array([0.1, 0.7, 0.9, np.nan, 0.0]),
    )
    assert made.gold_rank().tolist() == [7, 0, 1000]
    assert made.gold_score().tolist() == [0.7, pytest.approx(np.nan, nan_ok=True), 0.0]


def test_a_step_is_computed_once_and_again_when_its_file_is_damaged() -> None:
    suite, model = planted_suite(30), PlantedModel()
    steps = Steps(model.fingerprint, model.describe(), suite.fingerprint)
    first = read_model(model, suite, steps)
    encoded = model.encoded
    again = read_model(model, suite, steps)
    assert model.encoded == encoded and (again.scores == first.scores).all() and (again.rank == first.rank).all()
    path = steps.folder / "reading.npz"
    path.write_bytes(path.read_bytes()[:-40])
    assert known_step(steps.key, "reading") is None
    assert (read_model(model, suite, steps).scores == first.scores).all() and model.encoded > encoded


def test_another_model_suite_or_code_is_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {Steps("a", {}, "s").key, Steps("b", {}, "s").key, Steps("a", {"dtype": "bf16"}, "s").key}
    keys.add(Steps("a", {}, "t").key)
    monkeypatch.setattr("gemma4vec.inspection.steps.code_version", lambda: "other")
    assert len(keys | {Steps("a", {}, "s").key}) == 5


def test_bm25_is_read_too() -> None:
    suite = planted_suite(30)
    found = read_model(Bm25Model(), suite, Steps("bm25", {}, suite.fingerprint))
    assert found.values("ndcg@10").tolist() == [1.0] * 30 and found.gold_rank().tolist() == [1] * 30
