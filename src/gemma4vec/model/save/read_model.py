"""Folders of models that we saved: their settings, and the encoder as it was saved.

Format 1 (before readouts had parameters) differs in the recipe's words alone, which `recipe.schema.Model` still reads.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gemma4vec.errors import InputError
from gemma4vec.model.backbone.attention_probe import check
from gemma4vec.model.encoder.build import EmbeddingModel, build
from gemma4vec.model.tokenize.tokenizer import load_saved_tokeniser
from gemma4vec.recipe.renamed import current_names
from gemma4vec.recipe.schema import Model

SETTINGS_FILE = "gemma4vec.json"
READOUT_FILE = "readout.safetensors"
FORMAT = 2


def read_settings(path: Path) -> dict[str, Any]:
    """What `gemma4vec.json` of a saved model says.

    Raises:
        InputError: it is missing or damaged.
    """
    file = path / SETTINGS_FILE
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(settings["model"], dict) or not isinstance(settings["fingerprint"], str):
            raise TypeError("model and fingerprint are expected")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is damaged ({error}); export the model again from its run") from error
    return dict(settings)


def model_of(settings: dict[str, Any]) -> Model:
    """The recipe's model part that a saved model was made by; its adapters are merged."""
    tree = current_names(settings["model"], SETTINGS_FILE, at="model", log=False)
    if settings.get("format") == 1 and tree.get("readout", {}).get("name") == "last_token":
        tree["readout"] = {"name": "last_token"}  # any pool_prompt was written there; it meant nothing
    return Model.model_validate(tree).model_copy(update={"lora": None})


def open_built(path: Path, model: Model, *, dtype: torch.dtype, device: torch.device | str) -> EmbeddingModel:
    """The encoder in a saved model's folder, its attention probed.

    Raises:
        InputError: a file is missing or damaged. WorkError: it does not attend as it says.
    """
    built = build(model, path, dtype=dtype, device=device, tokeniser=load_saved_tokeniser(path))
    for part, weights in ((built.encoder.readout, _readout_weights), (built.encoder.head, _head_weights)):
        if part is not None:
            _load(part, weights(path))
    check(built.encoder.backbone)
    return built


def _load(part: nn.Module, weights: dict[str, Tensor]) -> None:
    """Put weights into the trained parameters of a part; every one must be there."""
    parameters = {name: parameter for name, parameter in part.named_parameters() if parameter.requires_grad}
    if set(parameters) != set(weights):
        raise KeyError(f"other parameters are expected: {', '.join(sorted(set(parameters) ^ set(weights)))}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            if parameter.shape != weights[name].shape:
                raise KeyError(f"{name} has shape {tuple(weights[name].shape)}, not {tuple(parameter.shape)}")
            parameter.copy_(weights[name])


def _readout_weights(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    file = path / READOUT_FILE
    return load_file(file) if file.exists() else {}


def _head_weights(path: Path) -> dict[str, Tensor]:
    """Those of the Dense modules, in their order."""
    from safetensors.torch import load_file

    modules = json.loads((path / "modules.json").read_text(encoding="utf-8"))
    folders = [path / module["path"] for module in modules if module["type"].endswith(".Dense")]
    weights = {}
    for number, folder in enumerate(folders):
        for name, value in load_file(folder / "model.safetensors").items():
            weights[f"{number}.{name.removeprefix('linear.')}"] = value
    return weights
