"""A model folder that is damaged is one line that says what to do."""

import json
from pathlib import Path

import pytest
from tiny_model import write_tiny

from gemma4vec.errors import InputError
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.recipe.schema import Model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a saved model holds, as far as opening reads it."""
    write_tiny(tmp_path, "llama", layers=1)
    write_settings(tmp_path, Model(base="tiny").model_dump(mode="json"))
    return tmp_path


def write_settings(folder: Path, model: dict) -> None:
    (folder / "gemma4vec.json").write_text(json.dumps({"model": model, "fingerprint": "f", "name": "n"}))


def test_the_folder_opens_whole(folder: Path) -> None:
    assert Embedder.load(folder, dtype="fp32").encode_query(["a"]).shape == (1, 32)


def test_an_unknown_setting(folder: Path) -> None:
    write_settings(folder, {"base": "tiny", "attenton": "causal"})
    with pytest.raises(InputError, match=r"gemma4vec.json is damaged .*attenton.*export the model again"):
        Embedder.load(folder)


def test_missing_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"cannot be loaded \(Error no file named model\.safetensors"):
        Embedder.load(folder)


def test_cut_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(InputError, match=r"cannot be loaded .*invalid header"):
        Embedder.load(folder)
