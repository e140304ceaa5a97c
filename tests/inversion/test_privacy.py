"""Leak against use on made-up vectors: rows, floors, cost by evaluation's own ranker, and vectors that say nothing."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hashed_words import HashedWords

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.errors import WorkError
from gemma4vec.evaluation.scoring.dense_ranker import EmbedderRanker
from gemma4vec.evaluation.scoring.metrics import per_query
from gemma4vec.evaluation.scoring.vector_ranking import score_vectors
from gemma4vec.inversion.held_out import Split, split_texts
from gemma4vec.inversion.privacy import (
    LOWER_BOUND,
    Encoded,
    choose_sentence,
    encode_all,
    measure_privacy,
    suite_texts,
)
from gemma4vec.text.prompts import Document

WORDS = [f"{a}{b}" for a in ("sort", "parse", "graph", "cache", "merge", "index") for b in ("er", "ing", "ed", "able")]


def sentences(count: int, seed: int) -> list[str]:
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, generator.integers(4, 8), replace=False)) for _ in range(count)]


@pytest.fixture(scope="module")
def suite() -> RetrievalSuite:
    documents = sentences(60, seed=3)
    return RetrievalSuite(
        name="made",
        corpus_ids=[f"d{n}" for n in range(60)],
        corpus=[Document(text) for text in documents],
        query_ids=[f"q{n}" for n in range(30)],
        queries=[" ".join(documents[n].split()[:2]) for n in range(30)],
        qrels={f"q{n}": {f"d{n}": 2, f"d{n + 1}": 1} for n in range(30)},
        role="dev",
    )


@pytest.fixture(scope="module")
def split() -> Split:
    texts = sentences(600, seed=1)
    return split_texts(texts, ["a" if n % 3 else "b" for n in range(600)], held_out=100)


@pytest.fixture(scope="module")
def encoded(suite: RetrievalSuite, split: Split) -> Encoded:
    return encode_all(WideWords(), suite, split, as_queries=False, report=lambda *_: None)


class WideWords(HashedWords):
    """With the dimension that an embedder has; documents may be plain texts."""

    dimension = 64

    def encode_document(self, documents: Any, *, progress: Any = None) -> np.ndarray:
        return self.encode_query([getattr(one, "text", one) for one in documents], progress=progress)


@pytest.fixture(scope="module")
def result(encoded: Encoded, suite: RetrievalSuite, split: Split) -> dict[str, Any]:
    return measure_privacy(encoded, suite, split)


def test_no_defense_changes_nothing_and_every_row_is_whole(result: dict[str, Any]) -> None:
    rows = {row["name"]: row for row in result["defenses"]}
    assert len(rows) == 13 and result["remark"] == LOWER_BOUND
    none = rows["none (fp32)"]
    assert none["naive"] == none["adaptive"] and none["cosine"] == pytest.approx(1, abs=1e-6)
    assert none["leak_change"] == none["use_change"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert abs(rows["int8"]["leak_change"]["mean"]) < 0.02 and abs(rows["int8"]["use_change"]["mean"]) < 0.05
    for row in rows.values():
        assert row["adaptive"]["low"] <= row["adaptive"]["mean"] <= row["adaptive"]["high"]
        assert row["use_change"]["mean"] == pytest.approx(row["use"]["mean"] - none["use"]["mean"])
        assert row["leak_change"]["mean"] == pytest.approx(row["adaptive"]["mean"] - none["adaptive"]["mean"])
    assert result["texts"]["held_out"] == 100 and sum(result["texts"]["sources"].values()) == 100
    assert set(result["by_source"]) == {"a", "b"}


def test_stronger_cuts_and_more_noise_leak_less(result: dict[str, Any]) -> None:
    leak = {row["name"]: row["adaptive"]["mean"] for row in result["defenses"]}
    assert leak["none (fp32)"] > leak["prefix of 32"] > leak["prefix of 8"]
    assert leak["noise .005"] > leak["noise .05"] and leak["none (fp32)"] > leak["binary"]
    naive = {row["name"]: row["naive"]["mean"] for row in result["defenses"]}
    assert leak["prefix of 8"] > naive["prefix of 8"] + 0.05  # an attacker who knows the defense is not fooled by it


def test_every_attacker_falls_to_a_floor_without_the_texts_own_vector(result: dict[str, Any]) -> None:
    words = result["floors"]["most frequent words"]["f1"]
    for row in result["defenses"]:
        assert row["shuffled"]["mean"] <= words["high"] + 0.02, row["name"]
    assert result["defenses"][0]["adaptive"]["mean"] > words["high"] + 0.3
    assert result["floors"]["nearest training text"]["exact"]["mean"] == 0.0
    assert result["ceiling"]["f1"]["mean"] == result["ceiling"]["exact"]["mean"] == 1.0


def test_vectors_that_say_nothing_leak_nothing(encoded: Encoded, suite: RetrievalSuite, split: Split) -> None:
    def constant(vectors: np.ndarray) -> np.ndarray:
        return np.repeat(encoded.train_MD[:1], len(vectors), axis=0)

    blind = Encoded(*map(constant, (encoded.train_MD, encoded.held_out_ND, encoded.queries_QD, encoded.documents_CD)))
    found = measure_privacy(blind, suite, split)
    words = found["floors"]["most frequent words"]["f1"]
    assert found["defenses"][0]["adaptive"]["mean"] <= words["high"]
    # Given other texts' vectors all along, the attacker has learned no more than word counts either.
    mixed = replace(encoded, held_out_ND=np.roll(encoded.held_out_ND, 1, axis=0))
    assert measure_privacy(mixed, suite, split)["defenses"][0]["adaptive"]["mean"] <= words["high"] + 0.02


def test_the_cost_is_what_evaluation_computes(encoded: Encoded, suite: RetrievalSuite) -> None:
    ranking = EmbedderRanker(WideWords()).rank(suite, 100)
    theirs = per_query(ranking.indices, ranking.scores, suite.query_ids, suite.corpus_ids, suite.qrels, ("ndcg@10",))
    ours = score_vectors(suite, encoded.queries_QD, encoded.documents_CD)
    np.testing.assert_allclose(ours, theirs["ndcg@10"], atol=1e-12)
    assert 0.2 < ours.mean() < 1
    own = replace(suite, query_ids=suite.corpus_ids[:30], qrels={f"d{n}": {f"d{n + 1}": 1} for n in range(30)})
    excluded = score_vectors(replace(own, exclude_identical_ids=True), encoded.queries_QD, encoded.documents_CD)
    assert excluded.mean() > score_vectors(own, encoded.queries_QD, encoded.documents_CD).mean()


def test_the_sentence_names_what_costs_nothing_visible() -> None:
    def row(name: str, leak: float, use: float) -> dict[str, Any]:
        return {
            "name": name,
            "adaptive": {"mean": leak, "low": leak - 0.01, "high": leak + 0.01},
            "leak_change": {"mean": leak - 0.5, "low": leak - 0.52, "high": leak - 0.48},
            "use_change": {"mean": use, "low": use - 0.005, "high": use + 0.005},
        }

    rows = [row("none (fp32)", 0.5, 0), row("cheap", 0.45, 0), row("dear", 0.2, -0.1), row("useless", 0.5, 0)]
    assert "cheap lowers it most, to 0.450 (chosen on these same texts)" in choose_sentence(rows)
    assert "no defense lowers that" in choose_sentence([rows[0], rows[2], rows[3]])


def test_texts_of_a_suite_are_sentences_of_its_documents(suite: RetrievalSuite) -> None:
    long = Document("One two three four. Too short. " + "word " * 40 + ". Is this a sentence too?")
    made = replace(suite, corpus=[long, Document("")])
    assert suite_texts(made, 10) == ["One two three four.", "Is this a sentence too?"]
    assert len(suite_texts(suite, 7, seed=1)) == 7 and suite_texts(suite, 7, seed=1) == suite_texts(suite, 7, seed=1)


def test_vectors_that_are_no_unit_vectors_are_refused(suite: RetrievalSuite, split: Split) -> None:
    class Long(WideWords):
        def encode_query(self, texts: Any, *, progress: Any = None) -> np.ndarray:
            return 2 * super().encode_query(texts)

    with pytest.raises(WorkError, match="vectors of texts of hashed-words are not of unit length"):
        encode_all(Long(), suite, split, as_queries=True, report=lambda *_: None)
