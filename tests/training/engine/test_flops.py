"""What a step needs is counted from masks and shapes, one pair and one product at a time."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import write_tiny
from torch import nn

from gemma4vec.model.backbone.backbone import Backbone
from gemma4vec.model.backbone.masks import attention_mask
from gemma4vec.model.encoder.build import EmbeddingModel, build
from gemma4vec.model.packing.packed_batch import PackedBatch, Tokens, lay_out
from gemma4vec.model.packing.shared_prefix import find_shared_prefixes
from gemma4vec.recipe import schema
from gemma4vec.training.engine.flops import (
    document_flops,
    first_trained_layer,
    flops_per_token,
    layout_flops,
    prediction_flops,
)

TEXTS = [[*range(3, 9), *range(20, 20 + extra)] for extra in (1, 7, 15)]  # six tokens that all begin with


def built_of(folder: Path, architecture: str, **settings: Any) -> EmbeddingModel:
    base = write_tiny(folder / architecture, architecture, layers=3)
    model = schema.Model.model_validate({"base": str(base), "allow_untested": True, **settings})
    return build(model, base, dtype=torch.float32)


def seen_pairs(backbone: Backbone, layout: PackedBatch, kind: str, *, ends: bool) -> int:
    """True cells in the mask that attention is given, of real tokens or of the documents' last ones."""
    mask = attention_mask(
        layout.positions_RC,
        layout.segments_RC,
        causal=backbone.causal,
        reach=backbone.reach if kind == "sliding_attention" else None,
        prefix_RC=layout.prefix_RC,
        shared=layout.shared,
    )
    per_cell = mask.squeeze(1).sum(dim=-1).flatten()
    chosen = layout.cells_T[layout.lengths_N.cumsum(0) - 1] if ends else (layout.segments_RC >= 0).flatten().nonzero()
    return int(per_cell[chosen.flatten()].sum())


def by_hand(built: EmbeddingModel, layout: PackedBatch, lowest: int, heads: int, size: int) -> tuple[float, float]:
    """Forward and backward, product by product."""
    backbone, last_token_only = built.encoder.backbone, built.encoder.readout.last_token_only
    kinds = getattr(backbone.config, "layer_types", None) or ["full_attention"] * len(backbone.layers)
    forward = backward = 0.0
    for number, layer in enumerate(backbone.layers):
        last = last_token_only and number == len(backbone.layers) - 1
        for name, module in layer.named_modules():
            if isinstance(module, nn.Linear):
                keys = name.startswith(("self_attn.k_proj", "self_attn.v_proj"))
                rows = len(layout.lengths_N) if last and not keys else int((layout.segments_RC >= 0).sum())
                one = 2.0 * module.weight.numel() * rows
                forward += one
                into_nothing = number == lowest and name.startswith("self_attn.") and ".o_proj" not in name
                if number >= lowest and (not into_nothing or "lora_B" in name):
                    backward += one
                if module.weight.requires_grad:
                    backward += one
        pairs = seen_pairs(backbone, layout, kinds[number], ends=last)
        forward += 4.0 * pairs * heads * size
        backward += 8.0 * pairs * heads * size * (number >= lowest)
    return forward, backward


@pytest.mark.parametrize("readout", ["last_token", "mean"])
@pytest.mark.parametrize(
    ("architecture", "attention", "shared"),
    [
        ("llama", "causal", False),
        ("llama", "causal", True),
        ("gemma3", "causal", True),
        ("gemma3", "bidirectional", False),
    ],
)
@pytest.mark.parametrize("upper", [None, 1])
def test_they_are_those_of_the_masks_and_the_shapes(
    tmp_path: Path, architecture: str, attention: str, shared: bool, readout: str, upper: int | None
) -> None:
    built = built_of(
        tmp_path, architecture, attention=attention, readout={"name": readout}, lora={"last_layers": upper}
    )
    lowest = 0 if upper is None else 2
    assert first_trained_layer(built) == lowest
    config = built.encoder.backbone.config
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    texts = [Tokens(ids) for ids in TEXTS]
    prefixes = find_shared_prefixes(TEXTS, 8)
    for rows, columns in (([[0, 1, 2]], 64), ([[0], [2, 1]], 48)):  # packed in any way, with padding: the same need
        layout = lay_out(texts, rows, columns, 0, **({"prefixes": prefixes} if shared else {}))
        expected = by_hand(built, layout, lowest, config.num_attention_heads, size)
        found = document_flops(built, [layout])
        assert (found.forward, found.backward) == pytest.approx(expected, rel=1e-12)


def test_vectors_that_are_put_in_at_the_bottom_reach_all_layers(tmp_path: Path) -> None:
    built = built_of(tmp_path, "llama", lora={"last_layers": 1})
    layout = lay_out([Tokens(TEXTS[0])], [[0]], 16, 0)
    short = document_flops(built, [layout])

    class Put(type(built.encoder.readout)):  # type: ignore[misc]
        def override_embeddings(self, layout: PackedBatch) -> None:
            return None

    built.encoder.readout.__class__ = Put
    assert document_flops(built, [layout]) == short  # nothing trained is put in
    built.encoder.readout.vector = nn.Parameter(torch.zeros(2))
    assert document_flops(built, [layout]).backward > 2 * short.backward


def test_where_tokens_are_predicted_the_last_layer_is_needed_for_all(tmp_path: Path) -> None:
    last, mean = (built_of(tmp_path / name, "llama", readout={"name": name}) for name in ("last_token", "mean"))
    layout = lay_out([Tokens(TEXTS[0])], [[0]], 16, 0)
    assert document_flops(last, [layout], predicts=True) == document_flops(mean, [layout])
    assert document_flops(last, [layout]).forward < document_flops(mean, [layout]).forward


def test_a_gradient_of_embeddings_passes_the_lowest_layers_products(tmp_path: Path) -> None:
    built = built_of(tmp_path, "llama")
    layout = lay_out([Tokens(TEXTS[0])], [[0]], 16, 0)
    frozen = document_flops(built, [layout]).backward
    built.encoder.backbone.model.get_input_embeddings().weight.requires_grad_()
    attention = built.encoder.backbone.layers[0].self_attn
    first = [x for part in (attention.q_proj, attention.k_proj, attention.v_proj) for x in (part.base_layer, part)]
    weights = sum(x.in_features * x.out_features for x in first[::2])
    adapters = sum(x.lora_A["default"].weight.numel() for x in first[1::2])
    assert document_flops(built, [layout]).backward - frozen == 2.0 * len(TEXTS[0]) * (weights + adapters)


def test_predicted_tokens_cost_the_vocabulary() -> None:
    weight_VD = torch.zeros(100, 8)
    assert prediction_flops(weight_VD, 10) == 2 * 2 * 100 * 8 * 10
    assert prediction_flops(weight_VD.requires_grad_(), 10) == 3 * 2 * 100 * 8 * 10


def test_the_three_counts_agree_where_they_count_the_same(tmp_path: Path) -> None:
    """A text alone without padding, all of whose states are read."""
    built = built_of(tmp_path, "llama", attention="causal", readout={"name": "mean"}, lora={"last_layers": 2})
    layout = lay_out([Tokens(TEXTS[1])], [[0]], len(TEXTS[1]), 0)
    backbone, n = built.encoder.backbone, len(TEXTS[1])
    needed = document_flops(built, [layout])
    assert layout_flops(backbone, n, (n + 1) / 2, first_trained_layer(built)) == needed
    assert needed.backward > 0
    for parameter in built.encoder.parameters():
        parameter.requires_grad = False
    assert layout_flops(backbone, n, 0.0, 3).total == n * flops_per_token(built.encoder)
    assert layout_flops(backbone, n, 0.0, 3).backward == 0.0
