"""The probe passes on sound models and stops on each kind of broken one."""

from pathlib import Path

import pytest
import torch

from gemma4vec.errors import WorkError
from gemma4vec.model import backbone as backbone_module
from gemma4vec.model.backbone import Backbone, load_backbone
from gemma4vec.model.probe import check, measure
from tiny_model import write_tiny


@pytest.fixture(scope="module", params=["gemma3", "llama"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp(request.param), request.param)


def load(folder: Path, causal: bool, dtype: torch.dtype = torch.float32) -> Backbone:
    return load_backbone(folder, causal=causal, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("causal", [True, False])
def test_sound_models_pass(folder: Path, causal: bool, dtype: torch.dtype) -> None:
    probe = check(load(folder, causal, dtype))
    assert (probe.future_to_past == 0.0) == causal
    assert probe.neighbour == 0.0


def test_the_training_shape_can_be_probed(folder: Path) -> None:
    assert check(load(folder, False), height=3, columns=64) == measure(load(folder, False), height=3, columns=64)


def test_a_silently_causal_model_is_caught(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = backbone_module.attention_mask
    monkeypatch.setattr(backbone_module, "attention_mask", lambda *a, **k: whole(*a, **{**k, "causal": True}))
    with pytest.raises(WorkError, match=r"loaded as bidirectional, but a later token does not move.*it is causal"):
        check(load(folder, causal=False))


def test_a_silently_bidirectional_model_is_caught(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = backbone_module.attention_mask
    monkeypatch.setattr(backbone_module, "attention_mask", lambda *a, **k: whole(*a, **{**k, "causal": False}))
    with pytest.raises(WorkError, match="loaded as causal, but a later token moves an earlier state"):
        check(load(folder, causal=True))


@pytest.mark.parametrize("causal", [True, False])
def test_leaking_documents_are_caught(folder: Path, causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def one_document(positions_RC: torch.Tensor, segments_RC: torch.Tensor, **settings: object) -> torch.Tensor:
        places_RC = torch.arange(positions_RC.shape[1]).expand_as(positions_RC)
        return backbone_module_mask(places_RC, segments_RC.clamp(max=0), **settings)

    backbone_module_mask = backbone_module.attention_mask
    monkeypatch.setattr(backbone_module, "attention_mask", one_document)
    # The second document comes after the first, so a causal leak shows in the second alone.
    with pytest.raises(WorkError, match="packed into one row see each other"):
        check(load(folder, causal))


def test_dead_attention_is_caught(folder: Path) -> None:
    backbone = load(folder, False)
    with torch.no_grad():
        for layer in backbone.layers:
            layer.self_attn.o_proj.weight.zero_()
    with pytest.raises(WorkError, match="an earlier token does not reach a later state"):
        check(backbone)
