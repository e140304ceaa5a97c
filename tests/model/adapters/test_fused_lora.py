"""One product for a layer and its adapter: the same values and gradients as peft's three products and a sum."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import Linear
from tiny_model import write_tiny
from torch import nn
from traced import trace_only

from gemma4vec.model.adapters.fused_lora import FusedLoraLinear, fuse_lora
from gemma4vec.model.encoder.build import EmbeddingModel, build
from gemma4vec.model.packing.packed_batch import PackedBatch, Tokens, pack
from gemma4vec.recipe.schema import Lora, Model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("base"), "gemma3", layers=3)


def built_with(folder: Path, lora: Lora, dtype: torch.dtype = torch.float64) -> EmbeddingModel:
    """A model whose adapters do something: B is zero at first."""
    built = build(Model(base=str(folder), lora=lora), folder, dtype=dtype, seed=1)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in built.trainable().items():
        if "lora_B" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return built


def layouts() -> list[PackedBatch]:
    generator = torch.Generator().manual_seed(0)
    return pack([Tokens(torch.randint(4, 300, (n,), generator=generator).tolist()) for n in (9, 5, 12, 7)], 16, 64, 0)


def run(built: EmbeddingModel) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    (layout,) = layouts()
    states_TD = built.encoder.backbone(layout)
    states_TD.pow(3).sum().backward()
    gradients = {name: p.grad.clone() for name, p in built.trainable().items() if p.grad is not None}
    for parameter in built.trainable().values():
        parameter.grad = None
    return states_TD.detach(), gradients


@pytest.mark.parametrize(
    "lora",
    [
        Lora(rank=4, alpha=12.0),
        Lora(rank=4, last_layers=2),
        Lora(rank=2, modules=("q_proj", "down_proj")),
    ],
    ids=["all", "upper layers", "two modules"],
)
def test_values_and_gradients_equal_pefts(folder: Path, lora: Lora) -> None:
    plain, joined = built_with(folder, lora), built_with(folder, lora)
    changed = fuse_lora(joined.encoder.backbone)
    assert 2 * changed == len(plain.trainable())
    assert list(plain.trainable()) == list(joined.trainable())
    (states, gradients), (found, found_gradients) = run(plain), run(joined)
    torch.testing.assert_close(found, states, rtol=1e-12, atol=1e-12)
    assert set(gradients) == set(found_gradients) == set(plain.trainable())
    for name, gradient in gradients.items():
        torch.testing.assert_close(found_gradients[name], gradient, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("way", ["traced", pytest.param("compiled", marks=pytest.mark.slow)])
def test_compiled_it_is_still_the_same(folder: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "traced":
        trace_only(monkeypatch)
    plain, joined = (built_with(folder, Lora(rank=4), torch.float32) for _ in range(2))
    fuse_lora(joined.encoder.backbone)
    joined.encoder.backbone.compile_layers()
    (states, gradients), (found, found_gradients) = run(plain), run(joined)
    torch.testing.assert_close(found, states, rtol=1e-4, atol=1e-4)
    for name, gradient in gradients.items():
        torch.testing.assert_close(found_gradients[name], gradient, rtol=1e-3, atol=1e-3)


def test_an_update_of_the_adapter_is_seen_and_merging_is_pefts_own(folder: Path) -> None:
    plain, joined = built_with(folder, Lora(rank=4)), built_with(folder, Lora(rank=4))
    fuse_lora(joined.encoder.backbone)
    for built in (plain, joined):
        with torch.no_grad():
            for parameter in built.trainable().values():
                parameter.copy_(parameter * 2 + 0.01)
    (states, _), (found, _) = run(plain), run(joined)
    torch.testing.assert_close(found, states, rtol=1e-12, atol=1e-12)
    assert joined.adapters is not None
    joined.encoder.backbone.model = joined.adapters.merge_and_unload()
    assert not any(isinstance(module, FusedLoraLinear) for module in joined.encoder.backbone.modules())
    torch.testing.assert_close(joined.encoder.backbone(layouts()[0]), states, rtol=1e-9, atol=1e-9)


def test_a_bias_is_added() -> None:
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(6, 5, bias=True)).double()
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["0"], init_lora_weights=False)).double()
    x = torch.randn(2, 3, 6, dtype=torch.float64)
    expected = model(x)
    assert fuse_lora(model.base_model.model) == 1
    torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("lora", [Lora(rank=2, dropout=0.1)], ids=["dropout"])
def test_other_kinds_stay_as_peft_made_them(folder: Path, lora: Lora) -> None:
    built = built_with(folder, lora)
    assert fuse_lora(built.encoder.backbone) == 0
    assert not any(isinstance(module, FusedLoraLinear) for module in built.encoder.backbone.modules())
    assert any(type(module) is Linear for module in built.encoder.backbone.modules())
