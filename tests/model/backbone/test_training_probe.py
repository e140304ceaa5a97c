"""Compiled layers are checked in the graphs of a training step. Here layers stay as they are, or change meanwhile."""

from pathlib import Path

import pytest
import torch
from tiny_model import MODES, write_tiny
from torch import nn

from gemma4vec.errors import WorkError
from gemma4vec.model.backbone import backbone as backbone_module
from gemma4vec.model.backbone.attention_probe import TrainingProbe
from gemma4vec.model.backbone.backbone import Backbone, load_backbone


def load(folder: Path, architecture: str = "gemma3", *, causal: bool = True) -> Backbone:
    dtype = torch.float32
    return load_backbone(write_tiny(folder, architecture), causal=causal, dtype=dtype).train()


@pytest.mark.parametrize("last_token_only", [False, True])
@pytest.mark.parametrize(("architecture", "causal"), MODES)
def test_sound_models_pass(tmp_path: Path, architecture: str, causal: bool, last_token_only: bool) -> None:
    backbone = load(tmp_path, architecture, causal=causal)
    for share in (False, True) if backbone.may_share_prefixes else (False,):
        found = TrainingProbe(backbone, 32, share=share, last_token_only=last_token_only).check()
        assert (found.future_to_past == 0.0) == causal
        assert found.neighbor == 0.0 and found.past_to_future > 1e-2
    assert backbone.training and all(parameter.grad is None for parameter in backbone.parameters())


def test_only_training_graphs_are_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In training mode with gradients, in one shape; and no more cells than may run before memory is planned."""
    seen = set()
    forward = Backbone.forward

    def noted(self: Backbone, layout: backbone_module.PackedBatch, **how: bool) -> torch.Tensor:
        seen.add((torch.is_grad_enabled(), self.training, layout.shared > 0, tuple(layout.input_ids_RC.shape)))
        return forward(self, layout, **how)  # type: ignore[arg-type]

    probe = TrainingProbe(load(tmp_path), 680, share=True)
    monkeypatch.setattr(Backbone, "forward", noted)
    probe.check()
    ((grad, training, shared, shape),) = seen
    assert grad and training and shared and 2 < shape[0] < shape[1] and shape[1] % 2 and shape[0] * shape[1] <= 2048


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("causal", [True, False])
def test_leaking_documents_are_caught(
    tmp_path: Path, causal: bool, share: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if share and not causal:
        return

    def one_document(positions_RC: torch.Tensor, segments_RC: torch.Tensor, **settings: object) -> torch.Tensor:
        places_RC = torch.arange(positions_RC.shape[1]).expand_as(positions_RC)
        return whole(places_RC, segments_RC.clamp(max=0), **settings)  # type: ignore[arg-type]

    whole = backbone_module.attention_mask
    probe = TrainingProbe(load(tmp_path, causal=causal), 32, share=share, last_token_only=True)
    monkeypatch.setattr(backbone_module, "attention_mask", one_document)
    with pytest.raises(WorkError, match="packed into one row see each other"):
        probe.check()


def test_another_direction_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = backbone_module.attention_mask
    probe = TrainingProbe(load(tmp_path, "llama"), 32, last_token_only=True)
    monkeypatch.setattr(backbone_module, "attention_mask", lambda *a, **k: whole(*a, **{**k, "causal": False}))
    with pytest.raises(WorkError, match="loaded as causal, but a later token moves an earlier state"):
        probe.check()


@pytest.mark.parametrize("last_token_only", [False, True])
def test_layers_that_compute_something_else_are_caught(tmp_path: Path, last_token_only: bool) -> None:
    backbone = load(tmp_path)
    probe = TrainingProbe(backbone, 32, share=True, last_token_only=last_token_only)
    with torch.no_grad():
        backbone.layers[-1].mlp.down_proj.weight.mul_(-1.0)
    with pytest.raises(WorkError, match=r"compiled layers have other states than uncompiled ones \(change \d"):
        probe.check()


def test_dropout_draws_the_same_for_each_pass(tmp_path: Path) -> None:
    backbone = load(tmp_path)
    for layer in backbone.layers:
        layer.mlp.down_proj = nn.Sequential(layer.mlp.down_proj, nn.Dropout(0.3))
    found = TrainingProbe(backbone, 32, last_token_only=True).check()
    assert found.future_to_past == found.neighbor == 0.0 and found.past_to_future > 1e-2
