"""Fewer dimensions and bits: codes are those of sentence-transformers, ranks those of a plain product."""

import numpy as np
import pytest
from sentence_transformers.util.quantization import quantize_embeddings
from sklearn.decomposition import PCA
from sklearn.metrics import ndcg_score

from gemma4vec.inspection.geometry.dimensions import CutVectors, int8, int8_codes, principal_axes, signs

GENERATOR = np.random.default_rng(0)
DOCUMENTS = GENERATOR.normal(0.3, 1.0, (80, 32)).astype(np.float32)
DOCUMENTS /= np.linalg.norm(DOCUMENTS, axis=1, keepdims=True)
QUERIES = DOCUMENTS[:25] + GENERATOR.normal(0, 0.25, (25, 32)).astype(np.float32)
QUERIES = (QUERIES / np.linalg.norm(QUERIES, axis=1, keepdims=True)).astype(np.float32)
QRELS = {f"q{row}": {f"d{row}": 2, f"d{row + 30}": 1} for row in range(25)}


def made() -> CutVectors:
    return CutVectors(QUERIES, DOCUMENTS, list(QRELS), [f"d{row}" for row in range(80)], QRELS)


def slow_ndcg(queries: np.ndarray, documents: np.ndarray) -> float:
    truth = np.array([[QRELS[f"q{row}"].get(f"d{doc}", 0) for doc in range(80)] for row in range(25)])
    return float(ndcg_score(truth, queries @ documents.T, k=10))


def test_int8_codes_are_those_of_sentence_transformers() -> None:
    assert (int8_codes(DOCUMENTS) == quantize_embeddings(DOCUMENTS, "int8")).all()
    step = (DOCUMENTS.max(0) - DOCUMENTS.min(0)) / 255
    assert (np.abs(int8(DOCUMENTS) - DOCUMENTS) <= step * 1.01).all()


def test_products_of_signs_order_as_hamming_distances_of_sentence_transformers_bits() -> None:
    packed = quantize_embeddings(DOCUMENTS, "ubinary")
    hamming = np.unpackbits(packed[0] ^ packed, axis=1).sum(axis=1).astype(int)
    assert (signs(DOCUMENTS)[0] @ signs(DOCUMENTS).T == 32 - 2 * hamming).all()


def test_axes_are_sklearns() -> None:
    mean, axes = principal_axes(DOCUMENTS, 5)
    theirs = PCA(5).fit(DOCUMENTS)
    assert np.allclose(mean, theirs.mean_, atol=1e-6)
    assert np.allclose(np.abs(axes.T @ theirs.components_.T), np.eye(5), atol=1e-3)


def test_changes_are_paired_with_the_whole_vectors() -> None:
    figures = {one.name: one for one in made().figures()}
    whole = slow_ndcg(QUERIES, DOCUMENTS)
    first = DOCUMENTS[:, :8] / np.linalg.norm(DOCUMENTS[:, :8], axis=1, keepdims=True)
    assert figures["first 8 of 32"].value == pytest.approx(slow_ndcg(QUERIES[:, :8], first) - whole, abs=1e-5)
    assert figures["int8"].value == pytest.approx(slow_ndcg(QUERIES, int8(DOCUMENTS)) - whole, abs=1e-5)
    assert figures["int8"].baseline == 0.0
    assert figures["first 8 of 32"].baseline < -0.02 and "random" in figures["first 8 of 32"].baseline_words
    assert figures["int8: first ten kept"].value > figures["binary: first ten kept"].value
    assert "first 4 of 32" not in figures  # fewer than 8 dimensions say nothing


def test_binary_counts_ties_by_the_documents_id_alone() -> None:
    same = CutVectors(QUERIES, DOCUMENTS, list(QRELS), [f"d{row}" for row in range(80)], QRELS)
    assert [one.value for one in same.figures()] == [one.value for one in made().figures()]
