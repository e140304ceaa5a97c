"""Write an export into an empty folder, in any of the formats. The parity gate judges it afterwards."""

import json
import shutil
from pathlib import Path
from typing import Any

from gemma4vec.errors import InputError
from gemma4vec.export.source import Source
from gemma4vec.files import sha256_text, write_json
from gemma4vec.ledger.run_folder import slug
from gemma4vec.model.save.quantization import CODES_FILE, scheme_of
from gemma4vec.model.save.read_model import read_settings
from gemma4vec.model.save.served_folder import make_servable
from gemma4vec.model.save.write_model import write_both_pooling_schemas

# What is not of the model: results of other formats.
_LEFT_OUT = shutil.ignore_patterns("parity.json", "*.onnx", "*.onnx.data", "*.gguf", ".*")


def check_format_holds(source: Source, to: str, dimension: int) -> None:
    """Refuse a model that the format cannot hold, before anything is written.

    Raises:
        InputError: it names the property; or the format's libraries are missing.
    """
    _import_libraries(to)
    if to == "onnx":
        from gemma4vec.export.formats.onnx_graph import check_onnx

        check_onnx(source.model)
    if to == "gguf":
        from gemma4vec.export.formats.gguf_tokenizer import read_gguf_tokenizer
        from gemma4vec.export.formats.gguf_weights import check_gguf

        if scheme_of(read_settings(source.folder)) == "mixed":
            raise InputError(
                f"gguf cannot hold {source.name}, quantized as mixed: it has no integers with one scale a row; use "
                f"--to st (its codes are in {CODES_FILE}), or quantize the model as q4_0"
            )
        config = json.loads((source.folder / "config.json").read_text(encoding="utf-8"))
        check_gguf(source.model, config, dimension, source.embedder.dimension)
        read_gguf_tokenizer(source.folder, int(config["vocab_size"]))


def write_format(source: Source, folder: Path, to: str, dtype: str, dimension: int) -> Path:
    """Fill `folder`. Return what a runtime opens: the folder, or the GGUF file in it.

    Raises:
        InputError: the format cannot hold the model. WorkError, OSError: writing failed.
    """
    if to == "st":
        write_sentence_transformers(source, folder, dimension)
        return folder
    if to == "onnx":
        write_onnx(source, folder, dimension)
        return folder
    from gemma4vec.export.formats.gguf_file import write_gguf

    file = folder / f"{slug(source.name)}-{dtype}.gguf"
    write_gguf(source, file, dtype, dimension)
    return file


def write_sentence_transformers(source: Source, folder: Path, dimension: int) -> None:
    """Copy a model's folder, with the words that servers choose by; a shorter vector is a last dense layer."""
    shutil.copytree(source.folder, folder, dirs_exist_ok=True, ignore=_LEFT_OUT)
    if (folder / "1_Pooling" / "config.json").is_file():
        write_both_pooling_schemas(folder / "1_Pooling" / "config.json")
    if dimension < source.embedder.dimension:
        _add_truncation(folder, source.embedder.dimension, dimension)
    lengths = [length for length in source.lengths if length <= dimension]
    make_servable(folder, causal=source.model.attention == "causal", matryoshka=lengths)


def write_onnx(source: Source, folder: Path, dimension: int) -> None:
    """Write the graph, the tokenizer, and what `OnnxEmbedder` needs to know."""
    from gemma4vec.export.formats.onnx_embedder import SETTINGS_FILE, TOKENIZER_FILE
    from gemma4vec.export.formats.onnx_graph import write_onnx_graph

    write_onnx_graph(source, folder, dimension)
    shutil.copy(source.folder / "tokenizer.json", folder / TOKENIZER_FILE)
    write_json(
        folder / SETTINGS_FILE,
        {
            "name": source.name,
            "fingerprint": sha256_text(source.fingerprint, "onnx", str(dimension))[:16],
            "dimension": dimension,
            "max_tokens": source.model.max_tokens,
            "prompts": source.embedder.prompts.as_dict(),
            "padding_id": source.embedder.tokenizer.padding_id,
        },
    )


def _add_truncation(folder: Path, whole: int, dimension: int) -> None:
    """Put a dense layer before the normalization that keeps the first `dimension` values."""
    import torch
    from sentence_transformers.sentence_transformer.modules import Dense

    modules: list[dict[str, Any]] = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    last = modules.pop()
    if not str(last["type"]).endswith(".Normalize"):
        raise InputError(f"{folder}/modules.json does not end in a normalization")
    place = f"{len(modules)}_Dense"
    dense = Dense(whole, dimension, bias=False, activation_function=None)
    with torch.no_grad():
        dense.linear.weight.copy_(torch.eye(whole)[:dimension])
    (folder / place).mkdir()
    dense.save(str(folder / place))
    (folder / place / "model.safetensors").chmod(0o644)
    number = len(modules)
    modules.append({"idx": number, "name": str(number), "path": place, "type": "sentence_transformers.models.Dense"})
    modules.append({**last, "idx": number + 1, "name": str(number + 1)})
    # gemma4vec.json describes the whole head, so the copy is for other programs alone.
    (folder / "gemma4vec.json").unlink()
    write_json(folder / "modules.json", modules)


def _import_libraries(to: str) -> None:
    needed = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "gguf": ("gguf", "xllamacpp"), "st": ()}[to]
    from importlib.util import find_spec

    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise InputError(f"--to {to} needs {', '.join(missing)}; pip install 'gemma4vec[export]'")
