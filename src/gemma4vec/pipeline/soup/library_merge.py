"""Merge methods beyond the mean, such as slerp, karcher or ties: mergekit's, through sentence-transformers.

The library compares architectures and tokenizers; prompts, limits and the common start are checked before
(`pipeline.soup.ingredients`). It holds all models in memory.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemma4vec.errors import InputError
from gemma4vec.model.readout import READOUTS
from gemma4vec.pipeline.soup.ingredients import Ingredient
from gemma4vec.pipeline.soup.tensors import TensorFolder

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def check_library_method(method: str, ingredients: Sequence[Ingredient]) -> None:
    """Refuse a method that the library does not have, or a readout that it cannot open.

    Raises:
        InputError: mergekit is not installed or has no such method; a readout of ours.
    """
    try:
        from mergekit.merge_methods import merge_state_dicts, registered_methods  # noqa: F401  (both are new in 0.1.5)
    except ImportError as error:
        raise InputError(
            f"--method {method}: uniform, greedy and weights are built in; others need mergekit: "
            'pip install "gemma4vec[merge]"'
        ) from error
    names = sorted(one.spec.name for one in registered_methods())
    if method not in names:
        raise InputError(f"--method {method}: use uniform, greedy, weights or one of mergekit's: {', '.join(names)}")
    readout = ingredients[0].model.readout
    if READOUTS[readout.name].sentence_transformers is None:
        raise InputError(
            f"--method {method} merges through sentence-transformers, which lacks the readout {readout.name}; use "
            "uniform, greedy or weights"
        )


def needs_start(method: str) -> bool:
    """Whether a method of the library works on changes from the start."""
    from mergekit.merge_methods import BasePolicy, get

    return bool(get(method).spec.contract.base == BasePolicy.REQUIRED) and method != "slerp"


def merge_by_library(
    ingredients: Sequence[Ingredient], method: str, start: Path | None, parameters: Mapping[str, float], folder: Path
) -> TensorFolder:
    """Return the merged model's tensors, under the keys of the ingredients.

    Args:
        ingredients: N models.
        method: a name of mergekit's.
        start: model folder of the common start, for a method that needs it.
        parameters: of the method.
        folder: empty; the merged model is written there, and must stay while its tensors are read.

    Raises:
        InputError: the library refuses models, method or parameters.
    """
    from sentence_transformers import SentenceTransformer

    try:
        models = [_open(one.folder) for one in ingredients]
        merged = SentenceTransformer.merge(
            models, method=method, base_model=None if start is None else _open(start), parameters=dict(parameters)
        )
    except (ValueError, TypeError, RuntimeError, KeyError) as error:
        raise InputError(f"--method {method}: {' '.join(str(error).split())[:300]}") from error
    del models
    merged.save(str(folder), create_model_card=False)
    found, wanted = TensorFolder(folder), ingredients[0].tensors.places
    if found.places.keys() != wanted.keys():
        odd = sorted(found.places.keys() ^ wanted.keys())[0]
        raise InputError(f"--method {method}: the merged model has other tensors than its ingredients, first {odd}")
    return found


def _open(folder: Path) -> "SentenceTransformer":
    import torch
    from sentence_transformers import SentenceTransformer

    settings: dict[str, Any] = {"dtype": torch.float32, "use_safetensors": True}
    return SentenceTransformer(
        str(folder), device="cpu", local_files_only=True, trust_remote_code=False, model_kwargs=settings
    )
