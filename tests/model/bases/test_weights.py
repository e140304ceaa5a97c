"""A model is identified by what its files contain, not by their names, sizes and dates."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_model import write_tiny
from tiny_saved import save_tiny
from transformers import AutoTokenizer

from gemma4vec.errors import InputError
from gemma4vec.model.bases.weights import hash_settings, hash_weights, weight_files
from gemma4vec.model.inference.cached_embedder import CachedEmbedder
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.training.terms.teachers import ModelTeacher

TEXTS = ["sort the tree", "read a file"]


def replace_weights(folder: Path) -> None:
    """Other values in files of the same size and dates."""
    for file in folder.rglob("model.safetensors"):
        before = file.stat()
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata()
        torch.manual_seed(9)
        changed = {
            name: (torch.randn_like(value) * value.std() if value.dim() > 1 else value).contiguous()
            for name, value in load_file(file).items()
        }
        save_file(changed, file, metadata=metadata)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert file.stat().st_size == before.st_size


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A base, a saved model, and the same as sentence-transformers would publish it."""
    root = tmp_path_factory.mktemp("originals")
    saved = save_tiny(root / "saved", "no-prompt-pooled")
    published = Path(shutil.copytree(saved, root / "published"))
    (published / "gemma4vec.json").unlink()
    return {"base": write_tiny(root / "base", "gemma3"), "saved": saved, "published": published}


@pytest.mark.parametrize("kind", ["base", "saved", "published"])
def test_replaced_weights_are_another_model(
    originals: dict[str, Path], kind: str, tmp_path: Path, log_lines: list[str]
) -> None:
    folder = Path(shutil.copytree(originals[kind], tmp_path / "model"))
    before = CachedEmbedder(Embedder.load(folder, dtype="fp32"))
    vectors = before.encode_query(TEXTS)
    replace_weights(folder)
    after = CachedEmbedder(Embedder.load(folder, dtype="fp32"))
    assert after.fingerprint != before.fingerprint and after.weights != before.weights
    found = after.encode_query(TEXTS)
    assert after.computed == 2 and after.found == 0
    np.testing.assert_array_equal(found, Embedder.load(folder, dtype="fp32").encode_query(TEXTS))
    assert np.abs(found - vectors).max() > 1e-3
    assert any("not those that were exported" in line for line in log_lines) == (kind == "saved")


@pytest.mark.parametrize("kind", ["base", "saved", "published"])
def test_a_copy_is_the_same_model_and_its_limit_another_setting(
    originals: dict[str, Path], kind: str, tmp_path: Path
) -> None:
    first = Embedder.load(originals[kind], dtype="fp32")
    copy = Embedder.load(shutil.copytree(originals[kind], tmp_path / "elsewhere"), dtype="fp32")
    short = Embedder.load(originals[kind], dtype="fp32", max_tokens=36)
    assert copy.fingerprint == first.fingerprint != short.fingerprint
    assert copy.weights == first.weights == short.weights  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["base", "saved", "published"])
def test_another_tokenizer_changes_the_model_but_not_its_weights(
    originals: dict[str, Path], kind: str, tmp_path: Path
) -> None:
    first = Embedder.load(originals[kind], dtype="fp32")
    folder = Path(shutil.copytree(originals[kind], tmp_path / "model"))
    (file,) = folder.rglob("tokenizer.json")
    file.write_text(file.read_text() + " ")
    other = Embedder.load(folder, dtype="fp32")
    assert other.fingerprint != first.fingerprint
    assert other.weights == first.weights  # type: ignore[attr-defined]


def test_a_teacher_with_other_weights_has_other_vectors(originals: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(originals["saved"], tmp_path / "teacher"))
    before = ModelTeacher(str(folder)).queries(TEXTS)
    replace_weights(folder)
    assert (ModelTeacher(str(folder)).queries(TEXTS) - before).abs().max() > 1e-3


def test_which_files_are_weights(tmp_path: Path) -> None:
    for name in ("model.safetensors", "pytorch_model.bin", "config.json", "README.md", "base.json"):
        (tmp_path / name).write_text(name)
    for folder in ("checkpoint-5", "onnx", "2_Dense", ".cache"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "pytorch_model.bin").write_text(folder)
    assert [file.name for file in weight_files(tmp_path)] == ["model.safetensors"]
    plain, settings = hash_weights(tmp_path), hash_settings(tmp_path)
    (tmp_path / "README.md").write_text("other")
    (tmp_path / "base.json").write_text("other")
    assert (hash_weights(tmp_path), hash_settings(tmp_path)) == (plain, settings)
    (tmp_path / "modules.json").write_text("[]")
    names = [str(file.relative_to(tmp_path)) for file in weight_files(tmp_path)]
    assert names == ["2_Dense/pytorch_model.bin", "model.safetensors"]
    assert hash_weights(tmp_path) != plain and hash_settings(tmp_path) != settings


def test_a_published_model_with_a_token_without_row_is_refused(originals: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(originals["published"], tmp_path / "model"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"<tool-{number}>" for number in range(len(tokenizer), 402)])
    tokenizer.save_pretrained(folder)
    with pytest.raises(InputError, match=r"402 tokens and the embedding 400 rows: token '<tool-400>' \(400\)"):
        Embedder.load(folder, dtype="fp32")
