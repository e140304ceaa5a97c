"""Read a saved model: its settings and its encoder.

Format 1, from before readouts had parameters, differs in recipe keys alone, which `recipe.schema.Model` still reads.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from gemma4vec.errors import InputError
from gemma4vec.files import sha256_text
from gemma4vec.machine.file_hashes import file_hash
from gemma4vec.model.backbone.attention_probe import check
from gemma4vec.model.encoder.build import EmbeddingModel, build
from gemma4vec.model.encoder.saved_parts import READOUT_FILE as READOUT_FILE
from gemma4vec.model.encoder.saved_parts import load_parts
from gemma4vec.model.tokenize.tokenizer import load_saved_tokenizer
from gemma4vec.reading.json_values import load_own_json
from gemma4vec.recipe.renamed import current_names
from gemma4vec.recipe.schema import Model
from gemma4vec.recipe.start import SETTINGS_FILE as SETTINGS_FILE

FORMAT = 2


def read_settings(path: Path) -> dict[str, Any]:
    """Contents of a saved model's `gemma4vec.json`.

    Raises:
        InputError: it is missing or damaged.
    """
    file = path / SETTINGS_FILE
    try:
        settings = load_own_json(file)
        if not isinstance(settings["model"], dict) or not isinstance(settings["fingerprint"], str):
            raise TypeError("model and fingerprint are expected")
        model_of(settings)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{file} is damaged ({reason}); export the model again from its run") from error
    return dict(settings)


def saved_fingerprint(path: Path, settings: dict[str, Any]) -> str:
    """Fingerprint of the weights in a saved model's folder and of its recipe part, 64 hexadecimal digits.

    As `save_model` stores it in the settings; another one now means that weights or settings were replaced.

    Raises:
        InputError: a file cannot be read.
    """
    weights = sorted(path.rglob("*.safetensors"))
    return fingerprint_of([f"{file.relative_to(path)} {file_hash(file)}" for file in weights], settings)


def fingerprint_of(weights: Sequence[str], settings: dict[str, Any]) -> str:
    """Fingerprint of lines `NAME SHA256`, one for each file of weights, and of the recipe part of `settings`."""
    return sha256_text(*weights, json.dumps(settings["model"], sort_keys=True))


def model_of(settings: dict[str, Any]) -> Model:
    """The recipe's model part of a saved model; its adapters are already merged."""
    tree = current_names(settings["model"], SETTINGS_FILE, at="model", log=False)
    if settings.get("format") == 1 and tree.get("readout", {}).get("name") == "last_token":
        tree["readout"] = {"name": "last_token"}  # a pool_prompt here had no meaning
    return Model.model_validate(tree).model_copy(update={"lora": None, "start": None})


def open_saved_model(path: Path, model: Model, *, dtype: torch.dtype, device: torch.device | str) -> EmbeddingModel:
    """Load the encoder of a saved model and run the attention probe.

    Raises:
        InputError: a file is missing or damaged.
        WorkError: attention differs from the saved mode.
    """
    embedding_model = build(model, path, dtype=dtype, device=device, tokenizer=load_saved_tokenizer(path))
    load_parts(embedding_model.encoder, path)
    check(embedding_model.encoder.backbone)
    return embedding_model
