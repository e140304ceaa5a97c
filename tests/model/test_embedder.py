"""Vectors depend on their text alone: not on order, neighbours or how many there are."""

from pathlib import Path

import numpy as np
import pytest
from tiny_saved import MAX_TOKENS, save_tiny

from gemma4vec.model import embedder as embedder_module
from gemma4vec.model.embedder import Embedder
from gemma4vec.model.prompts import Document
from tiny_model import TEXTS

# Of many lengths, so that packs of every shape come about.
MIXED = [" ".join(TEXTS[i : i + 1 + i % 7]) for i in range(0, 120, 2)] + ["", " ", "\ud800", "x" * 100_000]


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    loaded = Embedder.load(save_tiny(tmp_path_factory.mktemp("model"), "both-mean"), dtype="fp32")
    assert isinstance(loaded, Embedder)
    return loaded


def test_vectors_are_unit_fp32_rows(embedder: Embedder) -> None:
    vectors = embedder.encode_document(MIXED)
    assert vectors.shape == (len(MIXED), 32) == (len(MIXED), embedder.dimension) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_neither_order_nor_batch_matters_in_fp32(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = embedder.encode_document(MIXED)
    order = np.random.default_rng(0).permutation(len(MIXED))
    np.testing.assert_allclose(embedder.encode_document([MIXED[i] for i in order]), whole[order], atol=2e-6)
    alone = np.concatenate([embedder.encode_document([text]) for text in MIXED[::8]])
    np.testing.assert_allclose(alone, whole[::8], atol=2e-6)
    monkeypatch.setattr(embedder_module, "_WINDOW", 5)
    np.testing.assert_allclose(embedder.encode_document(MIXED), whole, atol=2e-6)


def test_equal_texts_have_equal_vectors_and_what_is_beyond_the_limit_does_not_count(embedder: Embedder) -> None:
    long = "read " * MAX_TOKENS
    vectors = embedder.encode_query([long, long + "sort the tree", long])
    np.testing.assert_allclose(vectors[0], vectors[1], atol=2e-6)
    np.testing.assert_allclose(vectors[0], vectors[2], atol=2e-6)


def test_queries_and_documents_have_their_own_prompts(embedder: Embedder) -> None:
    text = "sort the tree"
    query, document = embedder.encode_query([text]), embedder.encode_document([text])
    assert float((query * document).sum()) < 0.999
    np.testing.assert_allclose(embedder.encode([text], prompt="task: code retrieval | query: "), query, atol=2e-6)
    np.testing.assert_allclose(embedder.encode([text], prompt="title: none | text: "), document, atol=2e-6)
    titled = embedder.encode_document([Document(text, "io")])
    np.testing.assert_allclose(embedder.encode([text], prompt="title: io | text: "), titled, atol=2e-6)
    assert float((embedder.encode([text]) * query).sum()) < 0.999


def test_no_texts_give_no_vectors(embedder: Embedder) -> None:
    assert embedder.encode_query([]).shape == (0, 32) and embedder.encode_document([]).dtype == np.float32


def test_progress_is_told_and_training_mode_is_left_as_it_was(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedder_module, "_WINDOW", 4)
    told: list[tuple[int, int]] = []
    embedder.encoder.train()
    embedder.encode_query(TEXTS[:10], progress=lambda done, total: told.append((done, total)))
    assert told == [(4, 10), (8, 10), (10, 10)] and embedder.encoder.training
    embedder.encoder.eval()
    embedder.encode_query(TEXTS[:1])
    assert not embedder.encoder.training


def test_bf16_stays_close_to_fp32(embedder: Embedder, tmp_path: Path) -> None:
    half = Embedder.load(save_tiny(tmp_path, "both-mean"), dtype="bf16")
    cosines = (half.encode_document(TEXTS[:30]) * embedder.encode_document(TEXTS[:30])).sum(1)
    assert cosines.mean() >= 0.999 and cosines.min() > 0.99


def test_without_a_compiler_a_large_job_says_so_once_and_gives_the_same(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(embedder_module, "_CHARACTERS_WORTH_COMPILING", 1)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    said: list[str] = []
    monkeypatch.setattr(embedder, "_compiled", None)
    monkeypatch.setattr(embedder, "_notice", said.append)
    vectors = [embedder.encode_query(TEXTS[:5]) for _ in range(2)]
    assert len(said) == 1 and said[0].startswith("encoding with uncompiled layers: there is no C++ compiler")
    monkeypatch.setattr(embedder, "_compiled", False)
    np.testing.assert_array_equal(vectors[1], embedder.encode_query(TEXTS[:5]))
