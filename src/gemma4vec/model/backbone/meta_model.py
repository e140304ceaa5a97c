"""Backbones without weights: on the meta device to count parameters, shallow and random to measure layers.

Layers of one kind cost the same. A kind consists of the attention type, whether keys and values are shared, all other
per-layer settings of the config, and whether a gradient passes.
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from gemma4vec.model import upstream
from gemma4vec.model.backbone.architectures import keep_layers, library_attention, model_class, set_attention_mode
from gemma4vec.model.backbone.backbone import Backbone
from gemma4vec.model.packing.packed_batch import PackedBatch

# Vocabulary of a shallow model: a larger embedding would cost a gigabyte and no time.
_VOCABULARY = 2048

Kind = tuple[Any, ...]


def empty_backbone(
    config: Any, *, causal: bool, dtype: torch.dtype, device: torch.device | str = "meta", allow_untested: bool = False
) -> Backbone:
    """A backbone with this config, without values (`meta`) or with random ones (any other device).

    Raises:
        InputError: the model type was never verified, or cannot attend as requested.
    """
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.* is deprecated", category=FutureWarning)
    config, architecture, window = set_attention_mode(config, causal=causal, allow_untested=allow_untested)
    with torch.device(device):
        model = upstream.model_from_config(
            model_class(config), config, dtype=dtype, attention=library_attention(config)
        )
    model.config.use_cache = False
    # Its last layer represents others of its kind, so it must compute all tokens.
    return Backbone(model, causal=causal, architecture=replace(architecture, caches_keys=False), window=window)


def layer_kinds(config: Any, first_trained: int) -> list[Kind]:
    """The kind of each layer. Its last element is true from layer `first_trained` on: a gradient passes."""
    layers = int(config.num_hidden_layers)
    lists = [value for value in config.to_dict().values() if isinstance(value, list) and len(value) == layers]
    shared = layers - int(getattr(config, "num_kv_shared_layers", 0) or 0)
    return [
        (*(str(values[i]) for values in lists), "shared" if i >= shared else "own", i >= first_trained)
        for i in range(layers)
    ]


def representative_layers(kinds: Sequence[Kind], at_least: int = 2) -> list[int]:
    """Numbers of layers that represent every kind once, plus others up to `at_least` layers.

    It takes the last layer of each kind, thus also the model's last one, whose type Gemma 4 checks.
    """
    chosen = list({kind: number for number, kind in enumerate(kinds)}.values())
    others = [i for i in reversed(range(len(kinds))) if i not in chosen]
    return sorted(chosen + others[: max(0, at_least - len(chosen))])


def shallow_config(config: Any, layers: Sequence[int]) -> Any:
    """The config of a model with only these layers and a small vocabulary."""
    values = keep_layers(config, layers).to_dict()
    values |= {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    for key in ("vocab_size", "vocab_size_per_layer_input"):
        if values.get(key):
            values[key] = min(values[key], _VOCABULARY)
    return type(config).from_dict(values)


def repeat_states(backbone: Backbone, layers: int) -> None:
    """Let a shallow backbone return the states of `layers` layers by repeating its own.

    The cost of a readout that mixes all layers grows with their number and must be part of the measurement.
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
    """Let a model with a small vocabulary read any token, modulo the vocabulary's size."""
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.register_forward_pre_hook(lambda embedding, ids: (ids[0] % embedding.num_embeddings, *ids[1:]))
