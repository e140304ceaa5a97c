"""Fake quantization: values and gradients equal a plain straight-through estimator on the merged weight, in float64."""

from pathlib import Path

import pytest
import tiny_model
import torch
from tiny_model import write_tiny
from torch import Tensor, nn
from torch.func import functional_call
from traced import trace_only

from gemma4vec.model.adapters.fake_quantize import FakeQuantization, merge
from gemma4vec.model.adapters.fused_lora import fuse_lora
from gemma4vec.model.adapters.grids import round_to_grid
from gemma4vec.model.encoder.build import EmbeddingModel, build
from gemma4vec.model.packing.packed_batch import PackedBatch, Tokens, pack
from gemma4vec.recipe.schema import Lora, Model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tiny_model.COMMON, "intermediate_size", 64)
        return write_tiny(tmp_path_factory.mktemp("base"), "gemma3", layers=2)


def make(folder: Path, dtype: torch.dtype = torch.float64, **changes: object) -> EmbeddingModel:
    """A model whose adapters do something: B is zero at first."""
    model = Model.model_validate({"base": str(folder), "head": {"widths": [6]}, **changes})
    built = build(model, folder, dtype=dtype, seed=1)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in built.trainable().items():
        if "lora_B" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return built


def quantization_of(built: EmbeddingModel, scheme: str) -> FakeQuantization:
    return FakeQuantization(built.encoder.backbone, built.encoder.head_layers, scheme)


def layout() -> PackedBatch:
    generator = torch.Generator().manual_seed(0)
    texts = [Tokens(torch.randint(4, 300, (n,), generator=generator).tolist()) for n in (9, 5, 12, 7)]
    (made,) = pack(texts, 16, 64, 0)
    return made


def masters_of(built: EmbeddingModel) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in built.trainable().items()}


def run(built: EmbeddingModel) -> tuple[Tensor, dict[str, Tensor]]:
    vectors = built.encoder([layout()])
    vectors.pow(3).sum().backward()
    found = {name: p.grad.clone() for name, p in built.trainable().items() if p.grad is not None}
    for parameter in built.trainable().values():
        parameter.grad = None
    return vectors.detach(), found


def straight_through(weight: Tensor, grid: object) -> Tensor:
    return weight + (round_to_grid(weight.detach(), grid) - weight).detach()  # type: ignore[arg-type]


def oracle(folder: Path, scheme: str, **changes: object) -> tuple[Tensor, dict[str, Tensor]]:
    """The same through autograd: every matrix of an unadapted model becomes W + sBA, rounded straight through."""
    built = make(folder, **changes)
    plain = make(folder, lora=None, head={"widths": [6]}, train="full")
    grids = quantization_of(make(folder, **changes), scheme).grids
    trained = {name: nn.Parameter(value) for name, value in masters_of(built).items()}
    named = dict(built.encoder.named_parameters())
    weights: dict[str, Tensor] = {}
    for name, parameter in plain.encoder.named_parameters():
        saved = name.removeprefix("backbone.model.").removesuffix(".weight" if name.startswith("head.") else "")
        place = name.removesuffix(".weight")
        value = trained.get(name, parameter.detach())
        if f"{place}.lora_A.default.weight" in trained:
            a, b = (trained[f"{place}.lora_{part}.default.weight"] for part in "AB")
            value = named[f"{place}.base_layer.weight"].detach() + 2.0 * b @ a
        weights[name] = straight_through(value, grids[saved]) if saved in grids else value
    vectors = functional_call(plain.encoder, weights, ([layout()],))
    vectors.pow(3).sum().backward()
    return vectors.detach(), {name: p.grad for name, p in trained.items() if p.grad is not None}


WAYS: dict[str, dict[str, object]] = {
    "lora": {"lora": {"rank": 4, "alpha": 8.0}},
    "some layers": {"lora": {"rank": 2, "alpha": 4.0, "modules": ["q_proj", "down_proj"], "last_layers": 1}},
    "full": {"lora": None, "train": "full", "train_embeddings": False},
    "full with embeddings": {"lora": None, "train": "full"},
}


@pytest.mark.parametrize("scheme", ["q4_0", "mixed"])
@pytest.mark.parametrize("way", list(WAYS))
def test_values_and_gradients_equal_a_slow_oracle(folder: Path, way: str, scheme: str) -> None:
    built = make(folder, **WAYS[way])
    masters = masters_of(built)
    quantization = quantization_of(built, scheme)
    quantization.refresh(masters)
    (vectors, gradients), (expected, wanted) = run(built), oracle(folder, scheme, **WAYS[way])
    torch.testing.assert_close(vectors, expected, rtol=1e-10, atol=1e-12)
    assert gradients.keys() == wanted.keys() == masters.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-8, atol=1e-12)
    raw, _ = run(make(folder, **WAYS[way]))
    assert (vectors - raw).abs().max() > 1e-3


def test_fused_adapters_are_quantized_too_and_an_update_is_seen(folder: Path) -> None:
    built, fresh = (make(folder, **WAYS["lora"]) for _ in range(2))
    assert fuse_lora(built.encoder.backbone) == 14
    quantization = quantization_of(built, "q4_0")
    masters = {name: value * 2 + 0.01 for name, value in masters_of(fresh).items()}
    for one in (built, fresh):
        one.load_trained(masters)
    quantization.refresh(masters)
    quantization_of(fresh, "q4_0")  # made after the update
    (vectors, gradients), (expected, wanted) = run(built), run(fresh)
    assert torch.equal(vectors, expected) and all(torch.equal(gradients[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("way", ["traced", pytest.param("compiled", marks=pytest.mark.slow)])
@pytest.mark.parametrize("trained", ["lora", pytest.param("full", marks=pytest.mark.slow)])
def test_compiled_layers_see_the_weights_of_each_step(
    folder: Path, way: str, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "traced":
        trace_only(monkeypatch)
    plain, compiled = (make(folder, torch.float32, **WAYS[trained]) for _ in range(2))
    both = [quantization_of(one, "q4_0") for one in (plain, compiled)]
    compiled.encoder.backbone.compile_layers()
    seen = []
    for factor in (1.0, 1.5):
        masters = {name: value * factor for name, value in masters_of(make(folder, **WAYS[trained])).items()}
        for one, quantization in zip((plain, compiled), both, strict=True):
            if trained == "lora":
                one.load_trained(masters)
            quantization.refresh(masters)
        (vectors, gradients), (found, found_gradients) = run(plain), run(compiled)
        torch.testing.assert_close(found, vectors, rtol=1e-4, atol=1e-4)
        for name, gradient in gradients.items():
            torch.testing.assert_close(found_gradients[name], gradient, rtol=1e-3, atol=1e-3)
        seen.append(vectors)
    assert (seen[0] - seen[1]).abs().max() > 1e-3


@pytest.mark.parametrize("way", list(WAYS))
def test_weights_of_a_wide_file_are_quantized_unrounded(folder: Path, way: str) -> None:
    """The file is fp32 and training bf16: frozen and adapted weights are rounded from the file's values."""
    built, wide = make(folder, torch.bfloat16, **WAYS[way]), make(folder, torch.float32, lora=None)
    masters = {name: value.float() for name, value in masters_of(built).items()}
    quantization = FakeQuantization(built.encoder.backbone, built.encoder.head_layers, "q4_0", folder)
    quantization.refresh(masters)
    exact = dict(wide.encoder.backbone.model.named_parameters())
    found = quantization.weights()
    assert found.keys() == quantization.grids.keys()
    for name, value in found.items():
        prefix = f"backbone.model.{name.removesuffix('.weight')}"
        source = masters.get(f"{prefix}.weight", exact[name].detach())
        if f"{prefix}.lora_A.default.weight" in masters:
            a, b = (masters[f"{prefix}.lora_{part}.default.weight"] for part in "AB")
            source = merge(exact[name].detach(), a, b, 2.0)
        assert torch.equal(value, round_to_grid(source, quantization.grids[name]).bfloat16()), name


def test_only_the_embeddings_that_are_read_are_rounded(folder: Path) -> None:
    built = make(folder, lora=None, train="full")
    masters = masters_of(built)
    quantization_of(built, "q4_0").refresh(masters)
    built.encoder([layout()])
    matrix, before = (one["backbone.model.embed_tokens.weight"] for one in (built.trainable(), masters))
    changed = {int(row) for row in (matrix != before).any(dim=1).nonzero()}
    read = set(layout().input_ids_RC.flatten().tolist())
    assert changed <= read and len(changed) > len(read) / 2


def test_adapters_without_a_merged_weight_are_refused(folder: Path) -> None:
    from gemma4vec.errors import InputError

    for lora in (Lora(rank=2, dora=True), Lora(rank=2, dropout=0.1)):
        with pytest.raises(InputError, match="without DoRA and without dropout"):
            quantization_of(make(folder, lora=lora.model_dump()), "q4_0")
