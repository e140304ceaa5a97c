"""Make a saved folder read correctly by servers, which read a few words of its small files and trust them.

- `modules.json`: text-embeddings-inference knows the type strings of sentence-transformers before version 6 alone. Of
  others it warns in its log and leaves out the dense layers (backends/src/lib.rs, `ModuleType`). sentence-transformers
  opens both spellings.
- `config.json`, `architectures`: servers choose a class by it. llama.cpp's converter turns `Gemma3TextModel` into
  `gemma-embedding`, which always attends in both directions; vLLM serves `Gemma3ForCausalLM` with a pooling config as
  an embedding model. So a causal model names the class of the causal language model, a bidirectional one its tower's.
- `config.json`, `is_matryoshka` and `matryoshka_dimensions`: vLLM refuses the request field `dimensions` without them.
"""

from collections.abc import Sequence
from pathlib import Path

from gemma4vec.errors import InputError
from gemma4vec.files import write_json
from gemma4vec.model.backbone.architectures import read_config
from gemma4vec.reading.json_values import load_foreign_json, read_json

ADVICE = "export the model again from its run"
# The names that every server knows. Modules of ours keep their own.
_SERVED_TYPES = {
    name: f"sentence_transformers.models.{name}" for name in ("Transformer", "Pooling", "Dense", "Normalize")
}


def make_servable(folder: Path, *, causal: bool, matryoshka: Sequence[int]) -> None:
    """Rewrite `modules.json` and `config.json` of a sentence-transformers folder.

    Args:
        folder: the model's folder.
        causal: its attention.
        matryoshka: the lengths of vector prefixes that were trained, the whole one included; empty: none.
    """
    file = folder / "modules.json"
    modules = read_json(file, "the model's modules", ADVICE, foreign=True)
    if not isinstance(modules, list) or not all(isinstance(one, dict) and "type" in one for one in modules):
        raise InputError(f"{file} is no list of modules with a type; {ADVICE}")
    for module in modules:
        if str(module["type"]).startswith("sentence_transformers."):
            module["type"] = _SERVED_TYPES.get(str(module["type"]).rsplit(".", 1)[-1], module["type"])
    write_json(file, modules)
    file = folder / "config.json"
    config = read_json(file, "the model's configuration", ADVICE, foreign=True)
    if not isinstance(config, dict):
        raise InputError(f"{file} is no mapping; {ADVICE}")
    if causal and (name := _causal_class(folder)) is not None:
        config["architectures"] = [name]
    if matryoshka:
        config["is_matryoshka"] = True
        config["matryoshka_dimensions"] = sorted(set(matryoshka))
    write_json(file, config)


def matryoshka_dimensions(folder: Path) -> list[int]:
    """The trained lengths that a folder's `config.json` names; empty if none."""
    try:
        config = load_foreign_json(folder / "config.json")
        return sorted(int(length) for length in config.get("matryoshka_dimensions") or ())
    except (OSError, ValueError, TypeError, AttributeError):
        return []


def _causal_class(folder: Path) -> str | None:
    """Name of the causal language model around the tower, if transformers has one."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    found = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(read_config(folder)), None)
    return found.__name__ if isinstance(found, type) else None
