"""What of a saved model a GGUF file can hold, and the values that it holds.

llama.cpp has two architectures for Gemma 3: `gemma-embedding` attends in both directions, always, and knows two dense
layers from D to D without bias; `gemma3` is causal and knows none. Everything else is refused by name.

Shapes: D hidden size, P pooled and projected dimensions.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemma4vec.errors import InputError
from gemma4vec.model.bases.gguf_model import gguf_name
from gemma4vec.recipe.schema import Model

Floats = NDArray[np.float32]
POOLING = {"mean": "MEAN", "last_token": "LAST", "first_token": "CLS"}
# llama.cpp takes another attention scale where there are as many layers as in Gemma 3 27B.
_LAYERS_OF_27B = 62


def check_gguf(model: Model, config: dict[str, Any], dimension: int, whole: int) -> None:
    """Refuse what llama.cpp's Gemma 3 architectures cannot hold.

    Args:
        model: the recipe's model part.
        config: contents of the folder's config.json.
        dimension: number of dimensions to export.
        whole: number of dimensions of the model's vectors.

    Raises:
        InputError: it names the property.
    """
    readout = model.readout
    reasons = {
        f"model type {config.get('model_type')}: it holds gemma3_text": config.get("model_type") != "gemma3_text",
        f"readout {readout.name}: it holds {', '.join(POOLING)}": readout.name not in POOLING,
        "readout without the prompt (pool_prompt: false): it pools every token": not getattr(
            readout, "pool_prompt", True
        ),
        "a head on a causal model: its causal architecture has no dense layers": (
            model.head is not None and model.attention == "causal"
        ),
        f"--dimension {dimension} of a causal model: cut the vectors where they are used": (
            dimension < whole and model.attention == "causal"
        ),
        "a head with bias": model.head is not None and model.head.bias,
        f"a head of {whole} dimensions: it is wider than the hidden size {config.get('hidden_size')}": (
            whole > int(config.get("hidden_size", 0))
        ),
        "attention or final logits with softcapping": bool(config.get("attn_logit_softcapping")),
        "scaled rotary embeddings": any(rope["rope_type"] != "default" for rope in rope_of(config).values()),
        f"{_LAYERS_OF_27B} layers: llama.cpp takes another attention scale": config.get("num_hidden_layers")
        == _LAYERS_OF_27B,
        "an attention scale that is not the head's size": config.get("query_pre_attn_scalar") != config.get("head_dim"),
        "attention with bias": bool(config.get("attention_bias")),
    }
    for reason, holds in reasons.items():
        if holds:
            raise InputError(f"gguf cannot hold {reason}; use --to onnx or --to st")
    window_period(config)


def rope_of(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Rotary settings by layer type."""
    return {kind: config["rope_parameters"][kind] for kind in ("full_attention", "sliding_attention")}


def window_period(config: dict[str, Any]) -> int:
    """p, where every p-th layer sees everything and the others slide; 0: all slide, 1: none does.

    Raises:
        InputError: the layers are in another order.
    """
    kinds = [kind == "sliding_attention" for kind in config["layer_types"]]
    if all(kinds):
        return 0
    for period in range(1, len(kinds) + 1):
        if kinds == [layer % period < period - 1 for layer in range(len(kinds))]:
            return period
    raise InputError("gguf cannot hold the order of sliding and full layers; use --to onnx or --to st")


def backbone_weights(folder: Path) -> Iterator[tuple[str, Floats]]:
    """(name in a GGUF file, float32 values) of each weight of the decoder. Norms are stored as weight + 1."""
    import torch
    from safetensors import safe_open

    for file in sorted(folder.glob("model*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - not a dictionary
                values = np.asarray(opened.get_tensor(name).to(torch.float32).numpy(), dtype=np.float32)
                place = gguf_name(name, "gemma3")
                yield place, values + np.float32(1.0) if place.endswith("norm.weight") else values


def folded_head(folder: Path, dimension: int, hidden: int) -> Floats | None:
    """`[D, D]`: all dense layers as one matrix, its first `dimension` rows, then rows of zeros.

    Zeros at the end of a vector change neither its length nor its inner products. None: the model has no head and
    keeps all dimensions.
    """
    import torch
    from safetensors.torch import load_file

    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    product = torch.eye(hidden, dtype=torch.float64)
    dense = [module for module in modules if module["type"].endswith(".Dense")]
    if not dense and dimension == hidden:
        return None
    for module in dense:
        product = load_file(folder / module["path"] / "model.safetensors")["linear.weight"].double() @ product
    padded_DD = np.zeros((hidden, hidden), dtype=np.float32)
    padded_DD[:dimension] = product[:dimension].numpy()
    return padded_DD
