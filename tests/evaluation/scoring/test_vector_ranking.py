"""Rankings by vectors that are at hand, against sorting all documents one by one."""

import numpy as np
import pytest

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.evaluation.scoring.metrics import per_query
from gemma4vec.evaluation.scoring.vector_ranking import rank_vectors, score_places, score_vectors
from gemma4vec.text.prompts import Document

M, N, D = 30, 7, 5


def unit(rows: int, seed: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal((rows, D)).astype(np.float32)
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), dtype=np.float32)


def suite(**parts: object) -> RetrievalSuite:
    ids = [f"d{number:02}" for number in range(M)]
    queries = [f"d{number:02}" for number in range(N)]  # queries have the ids of documents
    qrels = {key: {ids[(number * 3 + 1) % M]: 2, ids[(number * 5 + 9) % M]: 1} for number, key in enumerate(queries)}
    documents = [Document(f"text {key}") for key in ids]
    return RetrievalSuite("s", ids, documents, queries, [f"query {key}" for key in queries], qrels, **parts)  # type: ignore[arg-type]


def by_hand(of: RetrievalSuite, vector_D: np.ndarray, documents_MD: np.ndarray, own: str, depth: int) -> list[int]:
    scores = documents_MD @ vector_D
    units = of.units or of.corpus_ids
    best = {key: max(float(scores[n]) for n in range(M) if units[n] == key) for key in set(units)}
    order = sorted(best, key=lambda key: (best[key], key), reverse=True)
    if of.exclude_identical_ids:
        order = [key for key in order if key != own]
    return [of.corpus_ids.index(key) for key in order][:depth]


UNITS = [f"d{number - number % 3:02}" for number in range(M)]


@pytest.mark.parametrize("parts", [{}, {"exclude_identical_ids": True}, {"units": UNITS}])
def test_a_ranking_is_that_of_all_documents_sorted(parts: dict[str, object]) -> None:
    of, vectors, documents = suite(**parts), unit(11, 1), unit(M, 2)
    rows = [number % N for number in range(11)]  # several vectors of one query
    found = rank_vectors(of, vectors, documents, 6, rows)
    for vector, row, places in zip(vectors, rows, found.indices, strict=True):
        assert places.tolist() == by_hand(of, vector, documents, of.query_ids[row], 6)


def test_each_ranking_is_scored_for_its_own_query() -> None:
    of, documents = suite(exclude_identical_ids=True), unit(M, 3)
    rows = [4, 4, 0]
    places = rank_vectors(of, unit(3, 4), documents, 10, rows).indices
    found = score_places(of, places, "ndcg@10", rows)
    for number, row in enumerate(rows):
        key = of.query_ids[row]
        falling = -np.arange(10, dtype=float)[None]
        alone = per_query(places[number : number + 1], falling, [key], of.corpus_ids, of.qrels, ("ndcg@10",))
        assert found[number] == alone["ndcg@10"][0]
    queries = unit(N, 5)
    whole = rank_vectors(of, queries, documents, 10)
    direct = per_query(whole.indices, whole.scores, of.query_ids, of.corpus_ids, of.qrels, ("ndcg@10",))["ndcg@10"]
    np.testing.assert_allclose(score_vectors(of, queries, documents), direct)
