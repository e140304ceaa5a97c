"""Backbones without their weights: on the meta device to count parameters, shallow and random to measure layers.

A kind is what tells the layers of one model apart: the attention type, whether keys and values are shared, whatever
else a config says layer by layer, and whether a gradient passes. Layers of one kind cost the same.
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from gemma4vec.model.backbone.backbone import Backbone
from gemma4vec.model.backbone.families import attending, library_attention, model_class
from gemma4vec.model.packing.packed_batch import PackedBatch

# Rows of a shallow model's embedding: gathering from a large one costs no more, and holding it costs a gigabyte.
_VOCABULARY = 2048

Kind = tuple[Any, ...]


def empty_backbone(
    config: Any, *, causal: bool, dtype: torch.dtype, device: torch.device | str = "meta", allow_untested: bool = False
) -> Backbone:
    """A backbone of this config with no values (`meta`) or random ones (any other device).

    Raises:
        InputError: a model type that was never verified, or cannot attend as asked.
    """
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.* is deprecated", category=FutureWarning)
    config, family, window = attending(config, causal=causal, allow_untested=allow_untested)
    with torch.device(device):
        model: Any = model_class(config)._from_config(
            config, dtype=dtype, attn_implementation=library_attention(config)
        )
    model.config.use_cache = False
    # Its last layer stands for others of its kind, so it must not leave out what only last tokens need.
    return Backbone(model, causal=causal, family=replace(family, caches_keys=False), window=window)


def layer_kinds(config: Any, first_trained: int) -> list[Kind]:
    """The kind of each layer; its last element says whether a gradient passes: from layer `first_trained` on."""
    layers = int(config.num_hidden_layers)
    lists = [value for value in config.to_dict().values() if isinstance(value, list) and len(value) == layers]
    shared = layers - int(getattr(config, "num_kv_shared_layers", 0) or 0)
    return [
        (*(str(values[i]) for values in lists), "shared" if i >= shared else "own", i >= first_trained)
        for i in range(layers)
    ]


def one_of_each(kinds: Sequence[Kind], at_least: int = 2) -> list[int]:
    """Numbers of layers that show every kind once, and of more where that gives fewer than `at_least`.

    The last of each kind, so the model's last layer is among them: Gemma 4 insists on its type.
    """
    chosen = list({kind: number for number, kind in enumerate(kinds)}.values())
    others = [i for i in reversed(range(len(kinds))) if i not in chosen]
    return sorted(chosen + others[: max(0, at_least - len(chosen))])


def shallow_config(config: Any, layers: Sequence[int]) -> Any:
    """The config of a model that has only these layers of the given one, and a small vocabulary."""
    values = config.to_dict()
    count = int(config.num_hidden_layers)
    for key, value in values.items():
        if isinstance(value, list) and len(value) == count:
            values[key] = [value[i] for i in layers]
    overrides = values.get("per_layer_config")
    if overrides:
        by_layer = {int(key): value for key, value in overrides.items()}
        values["per_layer_config"] = {new: by_layer[old] for new, old in enumerate(layers) if old in by_layer}
    if values.get("num_kv_shared_layers"):
        values["num_kv_shared_layers"] = sum(i >= count - values["num_kv_shared_layers"] for i in layers)
    values["num_hidden_layers"] = len(layers)
    values |= {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    for key in ("vocab_size", "vocab_size_per_layer_input"):
        if values.get(key):
            values[key] = min(values[key], _VOCABULARY)
    return type(config).from_dict(values)


def give_as_many_states(backbone: Backbone, layers: int) -> None:
    """Let a shallow backbone give the states of so many layers, its own several times, to a readout that mixes all.

    What such a readout computes and keeps grows with the layers, and must be seen when it is measured.
    """
    plain = backbone.forward

    def forward(layout: PackedBatch, *, all_layers: bool = False, **settings: Any) -> Tensor:
        states = plain(layout, all_layers=all_layers, **settings)
        if not all_layers:
            return states
        chosen = torch.arange(layers + 1, device=states.device) * (len(states) - 1) // layers
        return states.index_select(0, chosen)

    backbone.forward = forward  # type: ignore[method-assign]


def fold_token_ids(model: nn.Module) -> None:
    """Let a model with a small vocabulary read any token: ids are taken modulo its size."""
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.register_forward_pre_hook(lambda embedding, ids: (ids[0] % embedding.num_embeddings, *ids[1:]))
