"""The trained readout and head of a saved model's folder."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from gemma4vec.model.encoder.encoder import TextEncoder
from gemma4vec.reading.json_values import read_json
from gemma4vec.recipe.start import READOUT_FILE as READOUT_FILE


def load_parts(encoder: TextEncoder, path: Path, parts: Sequence[str] = ("readout", "head")) -> None:
    """Copy the weights of readout and head, or of one of them, from a saved model's folder.

    Raises:
        KeyError: a weight is missing, or has another shape.
        OSError, SafetensorError: a file is missing or damaged.
    """
    for name, part, weights in (
        ("readout", encoder.readout, _readout_weights),
        ("head", encoder.head, _head_weights),
    ):
        if part is not None and name in parts:
            _load(part, weights(path))


def _load(part: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copy weights into the trained parameters of a part; none may be missing."""
    parameters = {name: parameter for name, parameter in part.named_parameters() if parameter.requires_grad}
    if set(parameters) != set(weights):
        raise KeyError(f"parameter names differ: {', '.join(sorted(set(parameters) ^ set(weights)))}")
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
    """Weights of the Dense modules, in their order."""
    from safetensors.torch import load_file

    modules = read_json(path / "modules.json", "the modules", "export the model again from its run", foreign=True)
    folders = [path / module["path"] for module in modules if module["type"].endswith(".Dense")]
    weights = {}
    for number, folder in enumerate(folders):
        for name, value in load_file(folder / "model.safetensors").items():
            weights[f"{number}.{name.removeprefix('linear.')}"] = value
    return weights
