"""States of all layers: against the library's own recording; compiled and checkpointed ones against plain ones."""

from pathlib import Path

import pytest
import torch
from tiny_documents import documents
from tiny_model import write_tiny
from traced import trace_only

from gemma4vec.errors import InputError
from gemma4vec.model.backbone.architectures import library_attention
from gemma4vec.model.backbone.backbone import load_backbone
from gemma4vec.model.packing.packed_batch import pack


@pytest.fixture(scope="module", params=["gemma3", "gemma4", "llama", "t5gemma", "t5gemma2"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp(request.param), request.param)


def test_all_layers_equal_what_the_library_records_of_each_document_alone(folder: Path) -> None:
    backbone = load_backbone(folder, causal=False, dtype=torch.float64).eval()
    texts = documents()
    for layout in pack(texts, 16, 32, 0):
        states_LTD = backbone(layout, all_layers=True)
        torch.testing.assert_close(states_LTD[-1], backbone(layout), rtol=0, atol=0)
        parts = states_LTD.split(layout.lengths_N.tolist(), dim=1)
        for number, part_LTD in zip(layout.documents, parts, strict=True):
            ids = torch.tensor([texts[number].ids])
            backbone.config._attn_implementation = library_attention(backbone.config)
            alone = backbone.model(input_ids=ids, use_cache=False, output_hidden_states=True).hidden_states
            assert len(alone) == len(part_LTD) == len(backbone.layers) + 1
            # The library computes its norms in fp32 whatever the model's type.
            torch.testing.assert_close(part_LTD, torch.cat(alone), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "way"),
    [
        ("gemma3", "traced"),
        pytest.param("gemma3", "compiled", marks=pytest.mark.slow),
        ("gemma3", "checkpointed"),
        ("gemma4", "checkpointed"),
        ("t5gemma", "checkpointed"),
    ],
)
def test_compiled_and_checkpointed_layers_record_the_same_with_the_same_gradients(
    tmp_path: Path, architecture: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "traced":
        trace_only(monkeypatch)
    folder = write_tiny(tmp_path, architecture)
    layout = pack(documents(), 16, 64, 0)[0]
    found = []
    for other in (False, True):
        backbone = load_backbone(folder, causal=False, dtype=torch.float32).train()
        if other and way in ("traced", "compiled"):
            backbone.compile_layers()
        elif other:
            backbone.use_gradient_checkpointing()
        states_LTD = backbone(layout, all_layers=True)
        scale_L = torch.arange(1.0, len(states_LTD) + 1)
        (states_LTD.square().mean((1, 2)) * scale_L).sum().backward()
        found.append([states_LTD, *(p.grad for p in backbone.parameters() if p.grad is not None)])
    for plain, fast in zip(*found, strict=True):
        torch.testing.assert_close(plain, fast, rtol=1e-4, atol=1e-4)


def test_layers_are_left_as_they_were_also_after_an_error(folder: Path) -> None:
    backbone = load_backbone(folder, causal=False, dtype=torch.float32).eval()
    layout = pack(documents(), 16, 64, 0)[0]
    backbone(layout, all_layers=True)
    assert all(layer._compiled_call_impl is None for layer in backbone.layers)
    backbone.model.norm.forward = None
    with pytest.raises(TypeError):
        backbone(layout, all_layers=True)
    assert all(layer._compiled_call_impl is None for layer in backbone.layers)


def test_layers_of_unlike_widths_are_refused_by_name(tmp_path: Path) -> None:
    backbone = load_backbone(write_tiny(tmp_path, "embedding_gemma2"), causal=False, dtype=torch.float32)
    with pytest.raises(InputError, match=r"model\.readout: it mixes layers, but .* 40 wide and the others 32"):
        backbone(pack(documents(), 16, 64, 0)[0], all_layers=True)
