"""The probe passes on sound models and stops on each kind of broken one."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_model import MODES, write_tiny

from gemma4vec.errors import WorkError
from gemma4vec.model.backbone import backbone as backbone_module
from gemma4vec.model.backbone.architectures import Reach
from gemma4vec.model.backbone.attention_probe import check, measure
from gemma4vec.model.backbone.backbone import Backbone, load_backbone


@pytest.fixture(scope="module", params=["gemma3", "llama"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp(request.param), request.param)


def load(folder: Path, causal: bool, dtype: torch.dtype = torch.float32) -> Backbone:
    return load_backbone(folder, causal=causal, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("architecture", "causal"), MODES)
def test_sound_models_pass(tmp_path: Path, architecture: str, causal: bool, dtype: torch.dtype) -> None:
    probe = check(load(write_tiny(tmp_path, architecture), causal, dtype))
    assert (probe.future_to_past == 0.0) == causal
    assert probe.neighbor == 0.0


def test_the_training_shape_can_be_probed(folder: Path) -> None:
    assert check(load(folder, False), height=3, columns=64) == measure(load(folder, False), height=3, columns=64)


def test_tokens_that_happen_to_be_equal_are_changed_all_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a small vocabulary may draw them."""
    backbone = load(folder, False)
    drawn = measure(backbone)
    monkeypatch.setattr(torch, "randint", lambda low, high, size, **_: torch.full(size, high - 1))
    equal = measure(backbone)
    assert min(drawn.future_to_past, drawn.past_to_future, equal.future_to_past, equal.past_to_future) > 1e-3


def test_weights_that_are_not_finite_are_called_that(folder: Path) -> None:
    broken = load(folder, True)
    with torch.no_grad():
        next(p for p in broken.layers[0].parameters() if p.ndim == 2)[0, 0] = float("nan")
    kind = broken.config.model_type
    for dtype, advice in (
        (torch.float32, "check its weights"),
        (torch.bfloat16, "check its weights, or load it in fp32"),
    ):
        with pytest.raises(WorkError) as refused:
            check(broken.to(dtype))
        assert str(refused.value) == (
            f"the {kind} in {folder} returns states that are not finite: its weights contain NaN or infinity, or "
            f"overflow in {str(dtype).removeprefix('torch.')}; {advice}"
        )


def test_a_silently_causal_model_is_caught(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = backbone_module.attention_mask
    monkeypatch.setattr(backbone_module, "attention_mask", lambda *a, **k: whole(*a, **{**k, "causal": True}))
    with pytest.raises(
        WorkError, match=rf"in {folder} was loaded as bidirectional, but a later token does not move.*it is causal"
    ):
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


WINDOWED = [(architecture, causal) for architecture, causal in MODES if architecture != "llama"]


def wrong_masks(monkeypatch: pytest.MonkeyPatch, change: Callable[[Reach], Reach]) -> None:
    whole = backbone_module.attention_mask

    def mask(*arguments: torch.Tensor, reach: Reach | None = None, **settings: bool) -> torch.Tensor:
        return whole(*arguments, reach=reach and change(reach), **settings)

    monkeypatch.setattr(backbone_module, "attention_mask", mask)


@pytest.mark.parametrize(("architecture", "causal"), WINDOWED)
@pytest.mark.parametrize(
    "change", [lambda r: Reach(2 * r.back, 2 * r.ahead), lambda r: Reach(r.back + 1, r.ahead)], ids=["doubled", "more"]
)
def test_a_window_that_is_too_wide_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str, causal: bool, change: Callable[[Reach], Reach]
) -> None:
    backbone = load(write_tiny(tmp_path, architecture, window=32), causal)
    wrong_masks(monkeypatch, change)
    with pytest.raises(WorkError, match=r"a sliding window reaches \d+ or more tokens back, not \d+"):
        check(backbone)


@pytest.mark.parametrize(("architecture", "causal"), WINDOWED)
def test_a_window_that_is_too_narrow_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str, causal: bool
) -> None:
    backbone = load(write_tiny(tmp_path, architecture, window=32), causal)
    wrong_masks(monkeypatch, lambda reach: Reach(reach.back // 2, reach.ahead // 2))
    with pytest.raises(WorkError, match=r"a sliding window reaches less than \d+ tokens back;"):
        check(backbone)


@pytest.mark.parametrize("architecture", ["gemma3", "gemma4", "gemma4_unified"])
def test_a_window_that_the_library_did_not_halve_is_caught(tmp_path: Path, architecture: str) -> None:
    backbone = load(write_tiny(tmp_path, architecture, window=32), causal=False)
    for module in backbone.model.modules():
        if hasattr(module, "config"):
            module.config.sliding_window = 32
    with pytest.raises(WorkError, match=r"a sliding window reaches .* tokens back in the transformers library, not 1"):
        check(backbone)


@pytest.mark.parametrize(
    ("architecture", "flag"), [("llama", "is_causal"), ("mistral", "is_causal"), ("qwen3", "is_causal")]
)
def test_a_lost_flag_is_caught(tmp_path: Path, architecture: str, flag: str) -> None:
    backbone = load(write_tiny(tmp_path, architecture), causal=False)
    setattr(backbone.config, flag, True)
    for layer in backbone.layers:
        layer.self_attn.is_causal = True
    with pytest.raises(
        WorkError, match=r"loaded as bidirectional, but its config lets the .* library run it as causal"
    ):
        check(backbone)
    backbone = load(write_tiny(tmp_path, architecture), causal=True)
    setattr(backbone.config, flag, False)
    with pytest.raises(WorkError, match=r"loaded as causal, but its config lets the .* library run it both ways"):
        check(backbone)


def test_a_gemma_whose_flag_was_set_too_late_is_caught(tmp_path: Path) -> None:
    backbone = load(write_tiny(tmp_path, "gemma3"), causal=True)
    backbone.config.use_bidirectional_attention = True
    with pytest.raises(WorkError, match="library run it both ways"):
        check(backbone)


def test_a_shared_beginning_that_is_not_seen_is_caught(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = backbone_module.attention_mask

    def blind(*tensors: torch.Tensor, shared: int, **settings: object) -> torch.Tensor:
        mask = whole(*tensors, shared=shared, **settings)
        mask[..., :shared] = False
        return mask

    assert check(load(folder, causal=True))
    monkeypatch.setattr(backbone_module, "attention_mask", blind)
    with pytest.raises(WorkError, match="share a prefix get other states than whole ones"):
        check(load(folder, causal=True))
