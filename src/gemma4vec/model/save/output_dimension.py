"""The embedding dimension of a model from its small files; no weights are loaded."""

from pathlib import Path
from typing import Any

from gemma4vec.errors import InputError
from gemma4vec.model.bases.sentence_transformers_folder import read_modules
from gemma4vec.model.encoder.check_config import read_config
from gemma4vec.model.readout import READOUTS
from gemma4vec.model.save.read_model import SETTINGS_FILE, model_of, read_settings
from gemma4vec.reading.json_values import load_foreign_json
from gemma4vec.recipe import schema

# Modules of sentence-transformers that do not change the dimension.
_KEEPS = {"Normalize", "Dropout"}


def recipe_dimension(model: schema.Model, config: dict[str, Any]) -> int | None:
    """D of a recipe's model; None: unknown. `config` is a result of `model.encoder.check_config.read_config`."""
    if model.head is not None:
        return model.head.widths[-1]
    width = config.get("state_width")
    return None if width is None else READOUTS[model.readout.name].width(model.readout, int(width))


def folder_dimension(folder: Path) -> int | None:
    """D of the vectors of `Embedder.load(folder)`; None: the small files do not say."""
    if (folder / "manifest.json").is_file() and (folder / "model" / SETTINGS_FILE).is_file():
        folder = folder / "model"
    try:
        if (folder / SETTINGS_FILE).is_file():
            return recipe_dimension(model_of(read_settings(folder)), read_config(folder))
        if (folder / "modules.json").is_file():
            return _of_modules(folder)
    except (InputError, OSError, ValueError, KeyError, TypeError):
        return None  # damaged; opening the model reports it
    width = read_config(folder).get("state_width")  # a base: the mean of its states
    return None if width is None else int(width)


def _of_modules(folder: Path) -> int | None:
    """As SentenceTransformer.get_embedding_dimension: from the last module with a dimension."""
    for module in reversed(read_modules(folder)):
        kind, inside = module["type"].rsplit(".", 1)[-1], folder / module.get("path", "")
        if kind == "Dense":
            return int(load_foreign_json(inside / "config.json")["out_features"])
        if kind == "Pooling":
            return _pooled(inside)
        if kind not in _KEEPS:
            return None
    return None


def _pooled(folder: Path) -> int:
    """Let the library read a pooling config, which has two formats and may combine modes."""
    from sentence_transformers.sentence_transformer.modules import Pooling  # a second's import

    return int(Pooling.load(str(folder)).get_embedding_dimension())
