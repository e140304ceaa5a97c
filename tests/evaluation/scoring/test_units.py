"""A suite whose documents are parts: a whole is found once, at the rank of its best part."""

from pathlib import Path

import numpy as np
import pytest

from gemma4vec.data.suites.retrieval import RetrievalSuite, load_suite, write_suite
from gemma4vec.data.suites.sample import sample_suite
from gemma4vec.errors import InputError
from gemma4vec.evaluation.scoring.bm25_model import Bm25Model
from gemma4vec.evaluation.scoring.evaluate import evaluate
from gemma4vec.evaluation.scoring.ranking import Ranking, best_of_units
from gemma4vec.text.prompts import Document

TEXTS = {"a": "red", "a~2": "red apple", "b": "red apple tree", "b~2": "green", "c": "apple", "d": "blue"}


def make(units: list[str] | None) -> RetrievalSuite:
    return RetrievalSuite(
        name="parts",
        corpus_ids=list(TEXTS),
        corpus=[Document(text) for text in TEXTS.values()],
        query_ids=["q"],
        queries=["red apple"],
        qrels={"q": {"b": 1}},
        units=units,
    )


UNITS = ["a", "a", "b", "b", "c", "d"]


def by_hand(ranking: Ranking, row: int) -> list[tuple[str, float]]:
    """The best score of each unit, sorted as trec_eval sorts."""
    ids, best = list(TEXTS), dict[str, float]()
    for index, score in zip(ranking.indices[row].tolist(), ranking.scores[row].tolist(), strict=True):
        if index >= 0:
            unit = UNITS[index]
            best[unit] = max(score, best.get(unit, -np.inf))
    assert ids
    return sorted(best.items(), key=lambda item: (item[1], item[0]), reverse=True)


def test_a_unit_has_the_rank_of_its_best_part() -> None:
    generator = np.random.default_rng(0)
    scores = np.sort(generator.integers(0, 4, (50, 6)).astype(np.float32))[:, ::-1]
    indices = np.stack([generator.permutation(6) for _ in range(50)])
    indices[:10, 4:] = -1
    ranking = Ranking(indices, np.ascontiguousarray(scores))
    found = best_of_units(ranking, list(TEXTS), UNITS, 3)
    for row in range(50):
        expected = by_hand(ranking, row)[:3]
        kept = found.indices[row] >= 0
        assert [list(TEXTS)[index] for index in found.indices[row][kept]] == [unit for unit, _ in expected]
        assert found.scores[row][kept].tolist() == [score for _, score in expected]


def test_scores_are_of_units() -> None:
    # Ranked are a~2, b, c, a: b is second among documents and among units.
    whole, parts = evaluate(Bm25Model(), make(UNITS)), evaluate(Bm25Model(), make(None))
    assert whole.mean["mrr@10"] == parts.mean["mrr@10"] == 0.5
    third = make(UNITS)
    third.qrels = {"q": {"c": 1}}
    assert evaluate(Bm25Model(), third).mean["mrr@10"] == pytest.approx(1 / 3)


def test_units_are_part_of_the_suite_on_disk(tmp_path: Path) -> None:
    suite = make(UNITS)
    write_suite(tmp_path / "s", suite)
    read = load_suite(tmp_path / "s")
    assert read.units == UNITS and read.fingerprint == suite.fingerprint != make(None).fingerprint
    write_suite(tmp_path / "plain", make(None))
    assert load_suite(tmp_path / "plain").units is None
    assert load_suite(tmp_path / "plain").fingerprint == make(None).fingerprint


def test_documents_in_training_touch_no_query(tmp_path: Path) -> None:
    suite = make(None)
    suite.documents_in_training = True
    write_suite(tmp_path / "s", suite)
    read = load_suite(tmp_path / "s")
    assert read.documents_in_training and read.fingerprint == suite.fingerprint != make(None).fingerprint
    assert read.texts().relevant == {} and make(None).texts().relevant == {"q": {"b"}}
    assert read.details()["documents_in_training"] and "documents_in_training" not in make(None).details()


@pytest.mark.parametrize(("units", "judged"), [(["a", "a", "x", "b", "c", "d"], "a"), (UNITS, "b~2")])
def test_odd_units_are_refused(tmp_path: Path, units: list[str], judged: str) -> None:
    suite = make(units)
    suite.qrels = {"q": {judged: 1}}
    write_suite(tmp_path / "s", suite)
    with pytest.raises(InputError, match=r"is the unit of a document|a judgment names"):
        load_suite(tmp_path / "s")


def test_a_sample_keeps_wholes(tmp_path: Path) -> None:
    sample = sample_suite(make(UNITS), 1, 3)
    assert sample.units is not None and {"b", "b~2"} <= set(sample.corpus_ids)
    assert set(sample.units) <= set(sample.corpus_ids)
