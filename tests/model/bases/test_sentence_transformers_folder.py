"""A sentence-transformers folder as a base: its transformer, wherever it lies; what is left behind is said."""

import json
from pathlib import Path

import pytest
import torch
from tiny_model import write_tiny

from gemma4vec.errors import InputError
from gemma4vec.model.backbone.backbone import load_backbone
from gemma4vec.model.bases.sentence_transformers_folder import describe_ignored_layers, transformer_folder
from gemma4vec.model.tokenize.tokenizer import load_tokenizer

KIND = "sentence_transformers.sentence_transformer.modules."


def embedding_gemma(folder: Path, transformer: str) -> Path:
    """Laid out as google/embeddinggemma-300m is: transformer, mean, two linear layers, unit length."""
    write_tiny(folder / transformer, "embedding_gemma")
    modules = [("Transformer", transformer), ("Pooling", "1_Pooling"), ("Dense", "2_Dense"), ("Dense", "3_Dense")]
    listed = [{"idx": i, "name": str(i), "path": path, "type": KIND + name} for i, (name, path) in enumerate(modules)]
    (folder / "modules.json").write_text(json.dumps(listed))
    for name, wide, narrow in (("2_Dense", 32, 128), ("3_Dense", 128, 32)):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps({"in_features": wide, "out_features": narrow}))
    return folder


@pytest.mark.parametrize("transformer", ["", "0_Transformer"])
def test_its_transformer_is_the_base_and_its_dense_layers_are_named(tmp_path: Path, transformer: str) -> None:
    embedding_gemma(tmp_path, transformer)
    assert transformer_folder(tmp_path) == tmp_path / transformer
    backbone = load_backbone(tmp_path, causal=False, dtype=torch.float32)
    assert backbone.config.use_bidirectional_attention is True
    assert load_tokenizer(tmp_path, append_eos=False).padding_id == 0
    line = describe_ignored_layers(tmp_path)
    assert line is not None and "\n" not in line
    assert "2 dense layer(s) (32 to 128, 128 to 32) are ignored" in line


def test_a_plain_folder_leaves_nothing_behind(tmp_path: Path) -> None:
    write_tiny(tmp_path, "llama")
    assert transformer_folder(tmp_path) == tmp_path and describe_ignored_layers(tmp_path) is None


def test_a_damaged_list_of_modules_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text("[{]")
    with pytest.raises(InputError, match=r"model\.base: .*modules\.json cannot be read"):
        transformer_folder(tmp_path)
