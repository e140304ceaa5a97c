"""The encoder of a recipe without weights, and whether a base's config, tokenizer and weight files fit each other.

Everything is built on the meta device; of weights only the headers are read.
"""

import logging
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gemma4vec.errors import Gemma4VecError, InputError
from gemma4vec.model.backbone.architectures import ENCLOSING_MODELS, first_layers, read_config, tower_config
from gemma4vec.model.backbone.meta_model import empty_backbone
from gemma4vec.model.bases.sentence_transformers_folder import transformer_folder
from gemma4vec.model.bases.weight_files import TensorHeader, tensor_headers
from gemma4vec.model.encoder.build import EmbeddingModel, assemble, load_recipe_tokenizer
from gemma4vec.model.encoder.check_config import check_recipe, check_vocabulary
from gemma4vec.model.encoder.check_config import read_config as read_values
from gemma4vec.recipe.schema import Model

logger = logging.getLogger(__name__)

_NUMBER = re.compile(r"\d+")
_LAYER = re.compile(r"layers\.(\d+)\.")


def outline_encoder(
    model: Model, path: str | Path, dtype: torch.dtype = torch.bfloat16, *, ids_alone: bool = False
) -> EmbeddingModel:
    """The encoder that `model.encoder.build.build` would load, on the meta device, with its real tokenizer.

    `ids_alone`: the tokenizer will not be saved (see `load_recipe_tokenizer`).

    Raises:
        InputError: whatever `build` would refuse, and a config that describes no model, contradicts the weight files,
            or is of quantized weights.
    """
    whole = read_config(path)
    config = first_layers(tower_config(whole), model.layers)
    values = read_values(path)
    check_recipe(model, values)
    _refuse_quantized(whole, path)
    tokenizer = load_recipe_tokenizer(model, path, ids_alone=ids_alone)
    check_vocabulary(tokenizer, values, path)
    try:
        empty = empty_backbone(
            config, causal=model.attention == "causal", dtype=dtype, allow_untested=model.allow_untested
        )
    except Gemma4VecError:
        raise
    except Exception as error:  # a wrong value in a config fails wherever the library first uses it
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError(f"model.base: {path}/config.json describes no model that can be built ({reason})") from error
    enclosing = ENCLOSING_MODELS.get(whole.model_type)
    headers = tensor_headers(transformer_folder(path))
    check_tensors(empty.model, headers, path, enclosing.prefix if enclosing else "", cut=model.layers is not None)
    return assemble(model, empty, tokenizer)


def _refuse_quantized(config: Any, path: str | Path) -> None:
    settings = getattr(config, "quantization_config", None)
    if settings:
        method = settings.get("quant_method") if isinstance(settings, dict) else type(settings).__name__
        raise InputError(
            f"model.base: the weights at {path} are quantized ({method or 'quantization_config'}); "
            "give the model in bf16 or fp32"
        )


def check_tensors(
    model: nn.Module, tensors: dict[str, TensorHeader], path: str | Path, prefix: str = "", *, cut: bool = False
) -> None:
    """Refuse a model whose weight files have other sizes or fewer layers than its config says.

    Names that the library changes while it loads are left to the loader: only names that both sides have, and layers
    of which others are there, are compared.

    Args:
        model: the text tower on the meta device, built from the config.
        tensors: what the weight files have; empty: nothing is checked.
        path: folder of the base, for messages.
        prefix: regular expression for what a larger model puts before the tower's names.
        cut: the recipe leaves layers out, so that more in the files are no surprise.

    Raises:
        InputError: one line with both sizes, or the missing layers.
    """
    found = {re.sub(prefix or r"^model\.", "", name): header for name, header in tensors.items()}
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    for name, shape in wanted.items():
        header = found.get(name)
        if header is not None and header.shape != shape:
            raise InputError(
                f"model.base: config.json and weights at {path} contradict each other: {name} is "
                f"{_size(shape)} by the config, {_size(header.shape)} in {header.file}; were they changed apart?"
            )
    known = {_NUMBER.sub("N", name) for name in wanted.keys() & found.keys() if _NUMBER.search(name)}
    missing = [name for name in wanted if name not in found and _NUMBER.sub("N", name) in known]
    if missing:
        raise InputError(
            f"model.base: the weights at {path} lack {len(missing)} tensors that its config.json promises, first "
            f"{missing[0]!r}; is the download complete, and num_hidden_layers right?"
        )
    layers = {int(number[1]) for name in wanted if (number := _LAYER.match(name))}
    extra = {int(number[1]) for name in found if (number := _LAYER.match(name))} - layers
    if layers and extra and not cut:
        logger.warning(
            f"warning: the weights at {path} have layers up to number {max(extra)}; its config.json takes the first "
            f"{len(layers)} (num_hidden_layers), the others are left out"
        )


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "one value"
