"""Vectors in the place of tokens: the token's own embedding changes nothing, another one is seen as that token."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_documents import documents
from tiny_model import BUILDERS, write_tiny
from traced import trace_only

from gemma4vec.model.backbone.backbone import load_backbone
from gemma4vec.model.packing.embedding_overrides import EmbeddingOverrides
from gemma4vec.model.packing.packed_batch import PackedBatch, Tokens, pack, pad


@pytest.fixture(scope="module", params=sorted(BUILDERS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp(request.param), request.param)


def first_cells(layout: PackedBatch) -> torch.Tensor:
    return layout.cells_T[layout.lengths_N.cumsum(0) - layout.lengths_N]


@pytest.mark.parametrize("lay", [lambda t: pack(t, 16, 64, 0)[0], lambda t: pad(t, 256, 0)[0]])
def test_another_tokens_embedding_is_seen_as_that_token(
    folder: Path, lay: Callable[[list[Tokens]], PackedBatch]
) -> None:
    backbone = load_backbone(folder, causal=False, dtype=torch.float64).eval()
    plain = lay(documents())
    swapped = lay([Tokens([7, *tokens.ids[1:]]) for tokens in documents()])
    cells = first_cells(plain)
    states_KD = backbone.input_states(torch.full(cells.shape, 7)).detach().requires_grad_()
    states_TD = backbone(plain, overrides=EmbeddingOverrides(cells, states_KD))
    if backbone.config.model_type == "gemma4_text":  # it reads the token's id too, for its per-layer embeddings
        backbone.model.embed_tokens_per_layer.weight.data.zero_()
        states_TD = backbone(plain, overrides=EmbeddingOverrides(cells, states_KD))
    torch.testing.assert_close(states_TD, backbone(swapped), rtol=0, atol=1e-6)  # norms are in fp32
    assert not torch.allclose(states_TD, backbone(plain))
    states_TD.square().sum().backward()
    assert states_KD.grad is not None and states_KD.grad.abs().sum(1).min() > 0
    if backbone.hidden_size != backbone.input_size:
        return  # its layers cannot be stacked
    entering = backbone(plain, all_layers=True, overrides=EmbeddingOverrides(cells, states_KD))[0]
    places = plain.lengths_N.cumsum(0) - plain.lengths_N
    torch.testing.assert_close(entering[places], states_KD, rtol=0, atol=1e-6)


def test_per_layer_embeddings_follow_the_token_that_stands_there(tmp_path: Path) -> None:
    """Gemma 4: a token's own embedding in its own place changes nothing at all."""
    backbone = load_backbone(write_tiny(tmp_path, "gemma4"), causal=False, dtype=torch.float64).eval()
    layout = pack(documents(), 16, 64, 0)[0]
    cells = layout.cells_T
    own_KD = backbone.input_states(layout.input_ids_RC.flatten()[cells]).detach()
    with torch.no_grad():
        torch.testing.assert_close(backbone(layout, overrides=EmbeddingOverrides(cells, own_KD)), backbone(layout))


@pytest.mark.parametrize(
    ("architecture", "way"),
    [
        ("llama", "traced"),
        pytest.param("llama", "compiled", marks=pytest.mark.slow),
        ("llama", "checkpointed"),
        ("gemma4", "checkpointed"),
        ("t5gemma", "checkpointed"),
    ],
)
def test_gradients_reach_the_vectors_through_compiled_and_checkpointed_layers(
    tmp_path: Path, architecture: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "traced":
        trace_only(monkeypatch)
    folder = write_tiny(tmp_path, architecture)
    layout = pack(documents(), 16, 64, 0)[0]
    cells = first_cells(layout)
    found = []
    for other in (False, True):
        backbone = load_backbone(folder, causal=False, dtype=torch.float32).train()
        if other and way != "checkpointed":
            backbone.compile_layers()
        elif other:
            backbone.use_gradient_checkpointing()
        backbone.requires_grad_(False)
        states_KD = torch.randn(len(cells), 32, generator=torch.Generator().manual_seed(1)).requires_grad_()
        states_TD = backbone(layout, overrides=EmbeddingOverrides(cells, states_KD))
        states_TD.pow(3).sum().backward()
        found.append((states_TD, states_KD.grad))
    for plain, fast in zip(*found, strict=True):
        assert float((plain - fast).detach().norm()) <= 1e-4 * float(plain.detach().norm())
