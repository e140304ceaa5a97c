"""A saved folder, read as servers read it: the strings and classes below are those of their own sources."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from tiny_saved import save_tiny

from gemma4vec.errors import InputError
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.model.save.served_folder import make_servable, matryoshka_dimensions
from gemma4vec.model.save.write_model import trained_lengths, write_both_pooling_schemas
from gemma4vec.recipe.schema import Recipe

# text-embeddings-inference, backends/src/lib.rs, enum ModuleType: any other string, and the dense layers are left out.
TEI_MODULES = {f"sentence_transformers.models.{name}" for name in ("Dense", "Normalize", "Pooling", "Transformer")}
# llama.cpp, conversion/__init__.py and src/models/: the attention of the architecture that each class becomes.
LLAMA_CPP_ATTENTION = {
    "Gemma3TextModel": "bidirectional",
    "Gemma3ForCausalLM": "causal",
    "LlamaForCausalLM": "causal",
    "MistralForCausalLM": "causal",
}
# vLLM, model_executor/models/registry.py: classes that it knows, and how each decides on its attention.
VLLM_ATTENTION = {
    "Gemma3TextModel": lambda config: "bidirectional" if config["use_bidirectional_attention"] else "causal",
    "Gemma3ForCausalLM": lambda config: "causal" if config.get("is_causal", True) else "bidirectional",
    "LlamaForCausalLM": lambda config: "causal" if config.get("is_causal", True) else "bidirectional",
    "LlamaModel": lambda config: "causal" if config.get("is_causal", True) else "bidirectional",
    "MistralForCausalLM": lambda config: "causal" if config.get("is_causal", True) else "bidirectional",
}


def contents(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


@pytest.mark.parametrize(
    ("kind", "attention"),
    [
        ("causal-last", "causal"),
        ("both-mean", "bidirectional"),
        ("no-prompt-pooled", "bidirectional"),
        ("llama-causal", "causal"),
        ("llama-both", "bidirectional"),
        ("mistral-causal", "causal"),
    ],
)
def test_servers_read_the_modules_and_the_attention(tmp_path: Path, kind: str, attention: str) -> None:
    folder = save_tiny(tmp_path, kind)
    config = contents(folder, "config.json")
    assert {module["type"] for module in contents(folder, "modules.json")} <= TEI_MODULES
    (name,) = config["architectures"]
    assert LLAMA_CPP_ATTENTION.get(name, attention) == attention
    assert VLLM_ATTENTION[name](config) == attention
    assert "is_matryoshka" not in config and matryoshka_dimensions(folder) == []


def recipe(*terms: dict[str, Any]) -> Recipe:
    stage = {
        "data": [{"name": "a", "path": "a.jsonl"}],
        "budget": {"steps": 1},
        "task": {"kind": "contrast", "terms": list(terms)},
    }
    return Recipe.model_validate({"name": "tiny", "model": {"base": "x"}, "stages": [stage]})


def test_the_trained_lengths_are_those_of_every_term_with_prefixes() -> None:
    assert trained_lengths(recipe({"kind": "nce"}), 32) == []
    assert trained_lengths(recipe({"kind": "nce", "matryoshka": [16, 8]}), 32) == [8, 16, 32]
    two = recipe(
        {"kind": "nce", "matryoshka": [16, 8]},
        {"kind": "gor", "matryoshka": [16]},
        {"kind": "nce", "name": "logged", "weight": 0, "matryoshka": [4]},
    )
    assert trained_lengths(two, 32) == [16, 32]


def test_an_older_folder_is_mended_with_the_same_vectors(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, "no-prompt-pooled")
    texts = ["sort the tree", "x"]
    expected = Embedder.load(folder, dtype="fp32").encode_query(texts)
    older = {
        "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
        "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
        "Dense": "sentence_transformers.base.modules.dense.Dense",
        "Normalize": "sentence_transformers.sentence_transformer.modules.normalize.Normalize",
    }
    modules = contents(folder, "modules.json")
    for module in modules:
        module["type"] = older[module["type"].rsplit(".", 1)[-1]]
    (folder / "modules.json").write_text(json.dumps(modules))
    make_servable(folder, causal=False, matryoshka=[6, 4])
    assert {module["type"] for module in contents(folder, "modules.json")} <= TEI_MODULES
    assert contents(folder, "config.json")["is_matryoshka"] is True and matryoshka_dimensions(folder) == [4, 6]
    theirs = SentenceTransformer(str(folder), device="cpu").encode_query(texts)
    assert ((theirs * expected).sum(1) >= 0.99999).all()
    np.testing.assert_allclose(Embedder.load(folder, dtype="fp32").encode_query(texts), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("modules.json", '[{"idx": 0}', "the model's modules .*modules.json line 1: not JSON"),
        ("modules.json", '[{"idx": 0}]', "is no list of modules with a type"),
        ("config.json", "[]", "config.json is no mapping"),
    ],
)
def test_a_damaged_folder_is_one_line(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / "modules.json").write_text("[]")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=f"{said}.*; export the model again from its run"):
        make_servable(tmp_path, causal=False, matryoshka=[])


@pytest.mark.parametrize("text", ["{", "[]", '{"embedding_dimension": 8}'])
def test_damaged_settings_of_pooling_are_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config.json.*export the model again from its run"):
        write_both_pooling_schemas(tmp_path / "config.json")
