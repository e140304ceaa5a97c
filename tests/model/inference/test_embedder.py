"""Vectors depend on their text alone: not on order, neighbors or how many there are."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import TEXTS
from tiny_saved import MAX_TOKENS, save_tiny
from torch._dynamo.exc import TorchDynamoException

from gemma4vec.errors import InputError
from gemma4vec.model.inference import embedder as embedder_module
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.model.packing.packed_batch import PackedBatch
from gemma4vec.text.prompts import Document, Prompted

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
    log_lines: list[str], embedder: Embedder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(embedder, "compiles_from", 1)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(embedder, "_compiled", None)
    vectors = [embedder.encode_query(TEXTS[:5]) for _ in range(2)]
    assert len(log_lines) == 1 and log_lines[0].startswith("encoding with uncompiled layers: there is no C++ compiler")
    monkeypatch.setattr(embedder, "_compiled", False)
    np.testing.assert_array_equal(vectors[1], embedder.encode_query(TEXTS[:5]))


def test_a_window_that_cannot_be_compiled_is_encoded_uncompiled_and_said_once(
    log_lines: list[str], embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = embedder.encode_document(MIXED)
    monkeypatch.setattr(embedder_module, "_WINDOW", 16)
    backbone, pooled, calls = embedder.encoder.backbone, embedder.encoder.pool, []

    def give_up(layouts: list[PackedBatch]) -> torch.Tensor:
        calls.append(len(layouts))
        if len(calls) == 2:
            raise TorchDynamoException("no such shape")
        return pooled(layouts)

    monkeypatch.setattr(embedder.encoder, "pool", give_up)
    monkeypatch.setattr(backbone, "compile_failed", False)
    backbone.compiled = True
    for _ in range(2):
        np.testing.assert_allclose(embedder.encode_document(MIXED), plain, atol=2e-6)
    assert log_lines == ["encoding with uncompiled layers from here on: compilation failed: no such shape"]
    assert not backbone.compiled and backbone.compile_failed


def test_reading_ahead_changes_no_bit(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedder_module, "_WINDOW", 7)
    ahead = embedder.encode_document(MIXED)
    monkeypatch.setattr(embedder_module, "Prefetcher", lambda items, depth: items)
    np.testing.assert_array_equal(embedder.encode_document(MIXED), ahead)


def test_the_next_window_is_read_while_one_is_computed(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedder_module, "_WINDOW", 16)
    pooled, lay_out, laid_out = embedder.encoder.pool, embedder._lay_out, threading.Semaphore(0)
    in_time: list[bool] = []

    def note(texts: list[Prompted]) -> list[PackedBatch]:
        made = lay_out(texts)
        laid_out.release()
        return made

    def wait(layouts: list[PackedBatch]) -> torch.Tensor:
        if not in_time:
            in_time.append(laid_out.acquire(timeout=300.0))  # its own window; then each time the next one
        in_time.append(laid_out.acquire(timeout=300.0 if len(in_time) < 3 else 0.1))
        return pooled(layouts)

    monkeypatch.setattr(embedder, "_lay_out", note)
    monkeypatch.setattr(embedder.encoder, "pool", wait)
    embedder.encode_document(MIXED[:48])
    assert in_time == [True, True, True, False]  # behind the last window there is none to read


@pytest.mark.parametrize("error", [InputError("text 20 is bad"), KeyboardInterrupt()])
@pytest.mark.parametrize("where", ["_lay_out", "_forward"])
def test_what_goes_wrong_in_a_window_comes_out_as_it_is(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch, where: str, error: BaseException
) -> None:
    monkeypatch.setattr(embedder_module, "_WINDOW", 16)
    work, calls = getattr(embedder, where), []

    def fail(given: object) -> object:
        calls.append(given)
        if len(calls) == 2:
            raise error
        return work(given)

    monkeypatch.setattr(embedder, where, fail)
    embedder.encoder.train()
    with pytest.raises(type(error)) as caught:
        embedder.encode_document(MIXED)
    assert caught.value is error and embedder.encoder.training
    embedder.encoder.eval()
    assert not any(thread.name.startswith("reading ahead") for thread in threading.enumerate())
