"""Bulk encodings with real models, tiny ones: the vectors, tokens and truncations of the model itself."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from encoded_folders import sums, write_corpus
from tiny_saved import MAX_TOKENS, save_tiny

from gemma4vec.errors import InputError
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.serving.encode.bulk_embedder import ModelOpener
from gemma4vec.serving.encode.encode_file import EncodeSettings, encode_file
from gemma4vec.text.prompts import Document

LENGTHS = (1, 3, 9, 30, 60, 80)
ROWS = [
    {"id": f"d{i}", "title": f"name {i}" if i % 2 else "", "text": "def return " * (LENGTHS[i % 6] // 2) + f"{i}"}
    for i in range(20)
]


@pytest.fixture(scope="module", params=["causal-last", "no-prompt-pooled", "echo"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp(request.param), request.param)


def test_rows_are_those_of_the_embedder(model: Path, tmp_path: Path) -> None:
    source = write_corpus(tmp_path / "c.jsonl", ROWS)
    made = encode_file(ModelOpener(str(model)), source, tmp_path / "out", EncodeSettings(shard_rows=7))
    table = pq.read_table(tmp_path / "out" / "vectors")
    embedder = Embedder.load(model)
    assert isinstance(embedder, Embedder)
    documents = [Document(row["text"], row["title"] or None) for row in ROWS]
    parts = [embedder.encode_document(documents[start : start + 7]) for start in (0, 7, 14)]
    found = np.array(table["vector"].to_pylist(), dtype=np.float32)
    assert table["id"].to_pylist() == [row["id"] for row in ROWS] and (found == np.concatenate(parts)).all()
    alone = np.concatenate([embedder.encode_document([one]) for one in documents])
    assert (found * alone).sum(axis=1).min() > 0.999
    prompted = [embedder.prompts.for_document(one) for one in documents]
    whole = [one.length for one in embedder.read(prompted, 10_000)]
    read = [one.length for one in embedder.read(prompted, MAX_TOKENS)]
    assert table["tokens"].to_pylist() == read and made.as_json()["tokens"] == sum(read)
    assert table["truncated"].to_pylist() == [a < b for a, b in zip(read, whole, strict=True)]
    assert {True, False} == set(table["truncated"].to_pylist())


def test_the_whole_job_decides_about_compiled_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last shard, small as it is, has the bytes that it has in one go, though another process encodes it."""
    model = save_tiny(tmp_path / "model", "causal-last")
    opener = ModelOpener(str(model))
    compiled = []

    def note(embedder: Embedder, texts: object) -> None:
        compiled.append(embedder.compiles_from)

    monkeypatch.setattr(Embedder, "_compile_if_worth_it", note)
    source = write_corpus(tmp_path / "c.jsonl", ROWS)
    encode_file(opener, source, tmp_path / "small", EncodeSettings(shard_rows=15))
    assert set(compiled) == {2**62}
    monkeypatch.setattr("gemma4vec.model.inference.embedder.CHARACTERS_WORTH_IT", {"cpu": 1_000})
    compiled.clear()
    encode_file(opener, source, tmp_path / "large", EncodeSettings(shard_rows=15), part=(2, 2))
    assert compiled == [0]
    encode_file(opener, source, tmp_path / "large", EncodeSettings(shard_rows=15))
    assert compiled == [0, 0] and sums(tmp_path / "large")["vectors/000001.parquet"]


def test_trained_lengths_are_those_of_the_model(tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "model", "both-mean")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"is_matryoshka": True, "matryoshka_dimensions": [8, 32]}))
    source = write_corpus(tmp_path / "c.jsonl", ROWS)
    settings = EncodeSettings(dimension=8, file_format="npy")
    encode_file(ModelOpener(str(model)), source, tmp_path / "out", settings)
    documents = [Document(row["text"], row["title"] or None) for row in ROWS]
    whole = Embedder.load(model).encode_document(documents)
    found = np.load(tmp_path / "out" / "vectors" / "000000.npy")
    np.testing.assert_allclose(found, whole[:, :8] / np.linalg.norm(whole[:, :8], axis=1, keepdims=True), rtol=1e-6)
    with pytest.raises(InputError, match="--dimension 16: tiny-both-mean was not trained for it; it has 8, 32"):
        encode_file(ModelOpener(str(model)), source, tmp_path / "other", replace(settings, dimension=16))


def test_a_model_of_sentence_transformers_counts_its_tokens(tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "model", "both-mean")
    (model / "gemma4vec.json").unlink()  # what is left is a sentence-transformers folder
    source = write_corpus(tmp_path / "c.jsonl", ROWS)
    encode_file(ModelOpener(str(model)), source, tmp_path / "out", EncodeSettings(input_type="query", shard_rows=50))
    table = pq.read_table(tmp_path / "out" / "vectors")
    embedder = Embedder.load(model)
    found = np.array(table["vector"].to_pylist(), dtype=np.float32)
    assert (found == embedder.encode_query([row["text"] for row in ROWS])).all()
    tokens, truncated = table["tokens"].to_pylist(), table["truncated"].to_pylist()
    assert max(tokens) == MAX_TOKENS and {True, False} == set(truncated)
    assert all(count == MAX_TOKENS for count, cut in zip(tokens, truncated, strict=True) if cut)
