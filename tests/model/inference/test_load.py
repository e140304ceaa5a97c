"""What a name may mean when a model is opened, and what is said when it means nothing."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_saved import MAX_TOKENS, save_tiny

from gemma4vec.errors import InputError
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.model.inference.embedder import Embedder, SentenceTransformerEmbedder

TEXTS = ["sort the tree", "read a file"]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("original")
    return save_tiny(root, "no-prompt-pooled").parent


@pytest.fixture
def saved(original: Path, tmp_path: Path) -> Path:
    """A copy of a saved model's run to damage."""
    return Path(shutil.copytree(original, tmp_path / "copy"))


def one_line(model: Path | str) -> str:
    with pytest.raises(InputError) as caught:
        Embedder.load(model, dtype="fp32")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_run_and_its_model_folder_are_the_same_model(original: Path, tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "tiny", "name: tiny\n")
    message = one_line(run.path)
    assert "has no finished model yet; go on with: gemma4vec train --resume" in message and str(run.path) in message
    shutil.copytree(original / "model", run.model)
    by_run, by_folder = Embedder.load(run.path, dtype="fp32"), Embedder.load(str(run.model), dtype="fp32")
    assert isinstance(by_run, Embedder) and by_run.name == by_folder.name == "tiny-no-prompt-pooled"
    assert by_run.fingerprint == by_folder.fingerprint
    np.testing.assert_array_equal(by_run.encode_query(TEXTS), by_folder.encode_query(TEXTS))


def test_the_fingerprint_says_what_would_change_vectors(original: Path) -> None:
    folder = original / "model"
    plain = Embedder.load(folder, dtype="fp32")
    assert Embedder.load(folder, dtype="fp32").fingerprint == plain.fingerprint
    assert Embedder.load(folder, dtype="fp32", max_tokens=36).fingerprint != plain.fingerprint
    assert Embedder.load(folder, dtype="bf16").fingerprint != plain.fingerprint
    # A limit above the model's own changes nothing.
    assert Embedder.load(folder, dtype="fp32", max_tokens=1000).fingerprint == plain.fingerprint


def test_describe_says_what_explains_a_score(original: Path) -> None:
    told = Embedder.load(original / "model", dtype="fp32").describe()
    assert told["dtype"] == "float32" and told["attention"] == "bidirectional" and told["dimension"] == 6
    assert told["max_tokens"] == MAX_TOKENS and told["pool_prompt"] is False and told["readout"] == "mean"
    assert told["prompts"]["query"] == "task: search result | query: " and told["base"] == str(original / "base")
    assert json.loads(json.dumps(told)) == told


def test_a_base_is_opened_as_it_is(original: Path) -> None:
    base = Embedder.load(original / "base", dtype="fp32")
    assert isinstance(base, Embedder) and base.dimension == 32
    told = base.describe()
    assert told["attention"] == "causal" and told["prompts"] == {"query": "", "document": ""}


def test_a_model_of_another_tool_is_run_by_sentence_transformers(saved: Path) -> None:
    ours = Embedder.load(saved / "model", dtype="fp32")
    (saved / "model" / "gemma4vec.json").unlink()
    theirs = Embedder.load(saved / "model", dtype="fp32")
    assert isinstance(theirs, SentenceTransformerEmbedder) and theirs.name == "copy" and theirs.dimension == 6
    assert theirs.describe()["max_tokens"] == MAX_TOKENS
    texts = [*TEXTS, "close " * 100]
    np.testing.assert_allclose(theirs.encode_query(texts), ours.encode_query(texts), atol=1e-5)
    np.testing.assert_allclose(theirs.encode_document(texts), ours.encode_document(texts), atol=1e-5)


def test_folders_of_other_tools_are_refused_in_one_line(tmp_path: Path, saved: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    assert "a LoRA adapter without its base model" in one_line(tmp_path / "adapter")
    (tmp_path / "empty").mkdir()
    assert "holds nothing" in one_line(tmp_path / "empty")
    assert "no model at 'no such model'" in one_line("no such model")
    for file in (saved / "model").rglob("*.safetensors"):
        file.unlink()
    (saved / "model" / "gemma4vec.json").unlink()
    assert "modules.json but no weights" in one_line(saved / "model")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": 3, "fingerprint": "x"}', '{"fingerprint": "x"}'])
def test_damaged_settings_are_one_line(saved: Path, content: str) -> None:
    (saved / "model" / "gemma4vec.json").write_text(content)
    message = one_line(saved / "model")
    assert "gemma4vec.json is damaged" in message and "export the model again" in message


def test_a_damaged_tokenizer_is_one_line(saved: Path) -> None:
    (saved / "model" / "tokenizer.json").write_text("{")
    assert "is damaged" in one_line(saved / "model")
