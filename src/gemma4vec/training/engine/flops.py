"""Floating-point operations of a training step, counted once for the dry run, the bench and the matrix.

Matrix products only, 2 operations for each multiplication and addition (Kaplan et al. 2020, arXiv:2001.08361, section
2.1): 2 for each weight and token forward, 2 for the gradient of the input, 2 for that of the weight where it is
trained. Attention: 4 * head size for each head and each pair of a token and one that it sees, twice that backward. The
gradient ends below the lowest layer that holds something trained; there the first products need no gradient of their
input, unless trained vectors enter at the bottom. Embeddings, norms, readout and loss are left out.

- `layout_flops`: of layouts as they are computed, padding included (dry run, advice).
- `document_flops`: of what the documents need, whatever layout and kernels spend (share of the machine's rate).
- `flops_per_token`: of every weight of the encoder, readout and head included, without attention (matrix).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gemma4vec.model.backbone.architectures import Reach
from gemma4vec.model.backbone.backbone import Backbone
from gemma4vec.model.encoder.build import EmbeddingModel
from gemma4vec.model.packing.packed_batch import PackedBatch
from gemma4vec.model.readout.base import Readout

_FIRST_PRODUCTS = ("q_proj", "k_proj", "v_proj")
_OF_ALL_TOKENS = ("k_proj", "v_proj")  # a fused `qkv_proj` is of all tokens too


@dataclass(frozen=True)
class Flops:
    """Operations of a forward and a backward pass."""

    forward: float = 0.0
    backward: float = 0.0

    def __add__(self, other: "Flops") -> "Flops":
        return Flops(self.forward + other.forward, self.backward + other.backward)

    @property
    def total(self) -> float:
        """Both passes."""
        return self.forward + self.backward


def product_flops(weights: float, rows: float, *, of_input: bool, of_weight: bool) -> Flops:
    """Operations of `rows` vectors times a matrix of `weights` entries, and of the gradients that it needs."""
    product = 2.0 * weights * rows
    return Flops(product, product * (of_input + of_weight))


def layout_flops(
    backbone: Backbone, cells: float, columns: float, first_trained: int, *, trains_below: bool = False
) -> Flops:
    """Operations of the decoder layers for a number of cells, padding included, with attention over whole rows.

    The second forward of gradient checkpointing is not counted.

    Args:
        backbone: the layers.
        cells: number of cells.
        columns: cells that each cell attends to.
        first_trained: number of the lowest layer that is trained; the number of layers where none is.
        trains_below: whether trained vectors enter the first layer.
    """
    return _decoder_flops(
        backbone,
        first_trained,
        trains_below,
        rows=lambda number, name: cells,
        pairs=lambda number: columns * cells,
    )


def document_flops(built: EmbeddingModel, layouts: Sequence[PackedBatch], *, predicts: bool = False) -> Flops:
    """Operations of the decoder layers that these documents need.

    No padding, no attention between documents and no recomputation; prefixes that documents share count once. A token
    sees the tokens before it where attention is causal, and the window in a layer that has one. Where the readout is
    one state of each document, the last layer needs keys and values of all tokens, but queries, attention and
    feed-forward of these alone. A share of a machine's rate that is counted so cannot pass 100%. The second encoder of
    a readout (`context`) is not counted.

    Args:
        built: the model.
        layouts: the documents.
        predicts: whether tokens are predicted from any state, whatever the readout reads.
    """
    backbone, readout = built.encoder.backbone, built.encoder.readout
    tokens = float(sum(layout.computed_tokens for layout in layouts))
    ends = float(sum(len(layout.lengths_N) for layout in layouts))
    all_pairs, end_pairs = (_count_pairs(backbone, layouts, of_ends=of_ends) for of_ends in (False, True))

    def is_last(number: int) -> bool:
        return readout.last_token_only and not predicts and number == len(backbone.layers) - 1

    def rows(number: int, name: str) -> float:
        return ends if is_last(number) and not any(part in name for part in _OF_ALL_TOKENS) else tokens

    def pairs(number: int) -> float:
        counted = end_pairs if is_last(number) else all_pairs
        return counted.window if _has_window(backbone, number) else counted.full

    return _decoder_flops(backbone, first_trained_layer(built), trains_inputs(built), rows=rows, pairs=pairs)


def _decoder_flops(
    backbone: Backbone,
    first_trained: int,
    trains_below: bool,
    *,
    rows: Callable[[int, str], float],
    pairs: Callable[[int], float],
) -> Flops:
    """All layers: `rows` of a layer's number and a product's name, `pairs` of tokens that a layer's attention needs."""
    found = Flops()
    for number, layer in enumerate(backbone.layers):
        reached = trains_below or number >= first_trained
        for name, module in layer.named_modules():
            if not isinstance(module, nn.Linear):
                continue
            bottom = number == first_trained and not trains_below and any(part in name for part in _FIRST_PRODUCTS)
            found += product_flops(
                module.in_features * module.out_features,
                rows(number, name),
                of_input=reached and not (bottom and "lora_B" not in name),  # the input of B trains A
                of_weight=reached and module.weight.requires_grad,
            )
        attention = _pair_flops(backbone, layer) * pairs(number)
        found += Flops(attention, 2.0 * attention * reached)
    return found


def flops_per_token(encoder: nn.Module, *, recomputed: bool = False) -> int:
    """Operations of a real token in training, counting products with every matrix of an encoder.

    Attention's products between tokens are small for texts of some hundred tokens and left out. The backward pass ends
    at the first trainable parameter, in the order of the modules. `recomputed` (gradient checkpointing) adds a second
    forward. Where all is trained this is Kaplan et al.'s 2 N forward and 4 N backward.
    """
    tables = {id(p) for module in encoder.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    found, backward = Flops(), False
    for parameter in encoder.parameters():
        backward = backward or parameter.requires_grad
        if id(parameter) in tables or parameter.ndim < 2:
            continue
        found += product_flops(parameter.numel(), 1, of_input=backward, of_weight=parameter.requires_grad)
    return round(found.total + found.forward * recomputed)


def prediction_flops(weight_VD: Tensor, predicted: int) -> float:
    """Operations of predicted tokens: scores of the vocabulary, the gradients of the states and of a trained matrix."""
    return product_flops(weight_VD.numel(), predicted, of_input=True, of_weight=weight_VD.requires_grad).total


def first_trained_layer(built: EmbeddingModel) -> int:
    """Number of the first decoder layer that holds something trainable: the backward pass ends there."""
    layers = built.encoder.backbone.layers
    trained = (i for i, layer in enumerate(layers) if any(p.requires_grad for p in layer.parameters()))
    return next(trained, len(layers))


def trains_inputs(built: EmbeddingModel) -> bool:
    """Whether input embeddings are trained, or the readout puts trained vectors in their place."""
    readout = built.encoder.readout
    replaces = type(readout).override_embeddings is not Readout.override_embeddings and bool(readout.trainable())
    return replaces or bool(built.encoder.backbone.model.get_input_embeddings().weight.requires_grad)


def _pair_flops(backbone: Backbone, layer: nn.Module) -> float:
    """Attention's operations for a token and one that it sees, all heads together."""
    config = backbone.config
    heads = int(config.num_attention_heads)
    size = getattr(getattr(layer, "self_attn", None), "head_dim", None) or config.hidden_size // heads
    return 4.0 * heads * size


def _has_window(backbone: Backbone, number: int) -> bool:
    kinds = getattr(backbone.config, "layer_types", None)
    return backbone.reach is not None and (kinds is None or kinds[number] == "sliding_attention")


@dataclass(frozen=True)
class _Pairs:
    """Pairs of a token and one that it sees, in layers without and with a window."""

    full: float
    window: float


def _count_pairs(backbone: Backbone, layouts: Sequence[PackedBatch], *, of_ends: bool) -> _Pairs:
    """Pairs of all computed tokens, or of the last token of each document, with those that they see."""
    full = window = 0.0
    for layout in layouts:
        positions, lengths = _ends(layout) if of_ends else _tokens(layout, backbone.causal)
        full += float(_count_seen(positions, lengths, backbone.causal, None).sum())
        window += float(_count_seen(positions, lengths, backbone.causal, backbone.reach).sum())
    return _Pairs(full, window)


def _tokens(layout: PackedBatch, causal: bool) -> tuple[Tensor, Tensor]:
    """(position in its document, length of what sees it) of each computed token."""
    if causal:  # shared prefixes are computed once
        positions = layout.positions_RC[layout.segments_RC >= 0]
        return positions, positions + 1
    lengths_T = layout.lengths_N.repeat_interleave(layout.lengths_N)
    starts_T = (layout.lengths_N.cumsum(0) - layout.lengths_N).repeat_interleave(layout.lengths_N)
    return torch.arange(len(lengths_T), device=lengths_T.device) - starts_T, lengths_T


def _ends(layout: PackedBatch) -> tuple[Tensor, Tensor]:
    return layout.lengths_N - 1, layout.lengths_N


def _count_seen(positions: Tensor, lengths: Tensor, causal: bool, reach: Reach | None) -> Tensor:
    """Number of tokens that each token sees, itself included."""
    before, behind = positions, lengths - 1 - positions
    if reach is not None:
        before, behind = before.clamp(max=reach.back), behind.clamp(max=reach.ahead)
    return 1 + before + (0 if causal else behind)
