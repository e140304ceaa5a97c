"""Operations that a training step's documents need, whatever the layout and the kernels spend: for shares of a rate.

Matrix products alone, 2 operations a multiplication and addition (Kaplan et al. 2020, arXiv:2001.08361, section 2.1):
2 for each weight and token forward, 2 for the gradient of the input, 2 for that of the weight where it is trained.
Attention: 4 * head size for each head and each pair of a token and one that it may see, twice that backward. A share
of a machine's rate that is counted so cannot pass 100%:

- Padding, attention between documents and recomputation count nothing, and beginnings that documents share count once.
- A token sees what is before it where attention is causal, and what the window holds in a layer that has one.
- Where the readout is one state of each document, the last layer needs keys and values of all tokens, but queries,
  attention and feed-forward of these alone.
- The gradient ends below the lowest layer that holds something trained; there the first products need none of their
  inputs, unless trained vectors enter at the bottom.

Embeddings, norms, readout and loss are left out, and so is what a second encoder does (`context`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gemma4vec.model.backbone.backbone import Backbone
from gemma4vec.model.backbone.families import Reach
from gemma4vec.model.encoder.build import EmbeddingModel
from gemma4vec.model.packing.packed_batch import PackedBatch
from gemma4vec.model.readout.base import Readout

_FIRST_PRODUCTS = ("q_proj", "k_proj", "v_proj")
_OF_ALL_TOKENS = ("k_proj", "v_proj")  # a fused `qkv_proj` is of all tokens too


@dataclass(frozen=True)
class _Pairs:
    """Pairs of a token and one that it sees, in layers without and with a window."""

    full: float
    window: float


def needed_operations(
    built: EmbeddingModel, layouts: Sequence[PackedBatch], *, predicts: bool = False
) -> Mapping[str, float]:
    """Operations of the decoder layers for these documents, `forward` and `backward`.

    `predicts`: tokens are predicted from states anywhere, whatever the readout reads.
    """
    backbone, readout = built.encoder.backbone, built.encoder.readout
    tokens = float(sum(layout.computed_tokens for layout in layouts))
    pairs = _pairs(backbone, layouts, of_ends=False)
    ends = float(sum(len(layout.lengths_N) for layout in layouts))
    end_pairs = _pairs(backbone, layouts, of_ends=True)
    lowest, from_below = first_trained_layer(built), trains_inputs(built)
    forward = backward = 0.0
    for number, layer in enumerate(backbone.layers):
        last = readout.only_ends and not predicts and number == len(backbone.layers) - 1
        reached = from_below or number >= lowest
        for name, module in layer.named_modules():
            if not isinstance(module, nn.Linear):
                continue
            rows = ends if last and not any(part in name for part in _OF_ALL_TOKENS) else tokens
            product = 2.0 * module.in_features * module.out_features * rows
            bottom = number == lowest and not from_below and any(part in name for part in _FIRST_PRODUCTS)
            of_input = reached and not (bottom and "lora_B" not in name)  # B's input is what trains A
            forward += product
            backward += product * (of_input + (reached and module.weight.requires_grad))
        seen = end_pairs if last else pairs
        attention = _of_a_pair(backbone, layer) * (seen.window if _windowed(backbone, number) else seen.full)
        forward += attention
        backward += 2.0 * attention * reached
    return {"forward": forward, "backward": backward}


def prediction_operations(task: Any, batches: Sequence[Any]) -> float:
    """Operations of a vocabulary's products, where tokens are predicted: logits, and the gradient of the states."""
    head = getattr(task, "head", None)
    if head is None:
        return 0.0
    predicted = sum(len(targets) for batch in batches for targets in batch.targets)
    trained = bool(head.weight_VD.requires_grad)
    return 2.0 * head.weight_VD.numel() * predicted * (2 + trained)


def first_trained_layer(built: EmbeddingModel) -> int:
    """Number of the first decoder layer that holds something trainable: the backward pass ends there."""
    layers = built.encoder.backbone.layers
    trained = (i for i, layer in enumerate(layers) if any(p.requires_grad for p in layer.parameters()))
    return next(trained, len(layers))


def trains_inputs(built: EmbeddingModel) -> bool:
    """Whether input embeddings are trained, or the readout puts trained vectors in their place."""
    readout = built.encoder.readout
    replaces = type(readout).replaced is not Readout.replaced and bool(readout.trained())
    return replaces or bool(built.encoder.backbone.model.get_input_embeddings().weight.requires_grad)


def _of_a_pair(backbone: Backbone, layer: nn.Module) -> float:
    """Attention's operations for a token and one that it sees, all heads together."""
    config = backbone.config
    heads = int(config.num_attention_heads)
    size = getattr(getattr(layer, "self_attn", None), "head_dim", None) or config.hidden_size // heads
    return 4.0 * heads * size


def _windowed(backbone: Backbone, number: int) -> bool:
    kinds = getattr(backbone.config, "layer_types", None)
    return backbone.reach is not None and (kinds is None or kinds[number] == "sliding_attention")


def _pairs(backbone: Backbone, layouts: Sequence[PackedBatch], *, of_ends: bool) -> _Pairs:
    """Pairs of all computed tokens, or of the last token of each document, with those that they see."""
    full = window = 0.0
    for layout in layouts:
        positions, lengths = _ends(layout) if of_ends else _tokens(layout, backbone.causal)
        full += float(_seen(positions, lengths, backbone.causal, None).sum())
        window += float(_seen(positions, lengths, backbone.causal, backbone.reach).sum())
    return _Pairs(full, window)


def _tokens(layout: PackedBatch, causal: bool) -> tuple[Tensor, Tensor]:
    """Place of each token that is computed in its document, and how long that is, as far as anybody sees it."""
    if causal:  # shared beginnings stand once
        positions = layout.positions_RC[layout.segments_RC >= 0]
        return positions, positions + 1
    lengths_T = layout.lengths_N.repeat_interleave(layout.lengths_N)
    starts_T = (layout.lengths_N.cumsum(0) - layout.lengths_N).repeat_interleave(layout.lengths_N)
    return torch.arange(len(lengths_T), device=lengths_T.device) - starts_T, lengths_T


def _ends(layout: PackedBatch) -> tuple[Tensor, Tensor]:
    return layout.lengths_N - 1, layout.lengths_N


def _seen(positions: Tensor, lengths: Tensor, causal: bool, reach: Reach | None) -> Tensor:
    """How many tokens each sees, itself among them."""
    before, behind = positions, lengths - 1 - positions
    if reach is not None:
        before, behind = before.clamp(max=reach.back), behind.clamp(max=reach.ahead)
    return 1 + before + (0 if causal else behind)
