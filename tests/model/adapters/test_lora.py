"""Adapters: on the layers that the recipe names, nowhere else, and gone without a trace when merged."""

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tiny_model import BUILDERS, write_tiny
from tiny_model import TEXTS as SENTENCES

from gemma4vec.errors import InputError
from gemma4vec.model.adapters.lora import add_lora, linear_names
from gemma4vec.model.backbone.backbone import Backbone, load_backbone
from gemma4vec.model.bases.resolve import resolve_base
from gemma4vec.model.encoder.build import EmbeddingModel, build
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.model.packing.packed_batch import Tokens, pack
from gemma4vec.model.save.write_model import save_model
from gemma4vec.recipe.schema import Head, Lora, Model, Recipe
from gemma4vec.text.prompts import Prompted

TEXTS = SENTENCES[:20]
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@pytest.fixture(scope="module", params=["gemma3", "llama"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp(request.param), request.param, layers=4)


def load(folder: Path) -> Backbone:
    return load_backbone(folder, causal=True, dtype=torch.float32)


def built_with(folder: Path, seed: int = 0, dtype: torch.dtype = torch.float32, **lora: Any) -> EmbeddingModel:
    model = Model(base=str(folder), lora=Lora(rank=2, **lora), head=Head(widths=(5,)))
    return build(model, folder, dtype=dtype, seed=seed)


def adapted(built: EmbeddingModel) -> set[tuple[int, str]]:
    """(layer, linear layer) of every adapter that is trained."""
    found = set()
    for name in built.trainable():
        if "lora_" in name:
            parts = name.split(".")
            found.add((int(parts[parts.index("layers") + 1]), parts[parts.index("default") - 2]))
    return found


# 21 names and more: from 20 on, peft shortens the list of names and must not reach other layers by it.
@pytest.mark.parametrize("last", [None, 1, 3, 4])
@pytest.mark.parametrize("modules", ["all-linear", ("q_proj", "v_proj")])
def test_it_adapts_what_the_recipe_names(folder: Path, last: int | None, modules: Any) -> None:
    names = LINEAR if modules == "all-linear" else modules
    expected = {(layer, name) for layer in range(4 - (last or 4), 4) for name in names}
    lora = Lora(rank=2, modules=modules, last_layers=last)
    assert len(linear_names(load(folder), lora)) == len(expected)
    assert adapted(built_with(folder, modules=modules, last_layers=last)) == expected


def test_only_adapters_and_head_are_trained(folder: Path) -> None:
    built = built_with(folder)
    trained = built.trainable()
    assert len(trained) == 4 * 7 * 2 + 1 and "head.0.weight" in trained
    assert all("lora_A" in name or "lora_B" in name or name == "head.0.weight" for name in trained)
    assert {tuple(p.shape) for name, p in trained.items() if "q_proj.lora_A" in name} == {(2, 32)}


def test_without_adapters_the_base_is_frozen_trained_or_trained_but_for_its_embeddings(folder: Path) -> None:
    def trained(**settings: Any) -> set[str]:
        return set(build(Model(base=str(folder), lora=None, **settings), folder, dtype=torch.float32).trainable())

    everything = {f"backbone.{name}" for name, _ in load(folder).named_parameters()}
    assert trained() == set()
    assert trained(train="full") == everything
    assert trained(train="full", train_embeddings=False) == everything - {"backbone.model.embed_tokens.weight"}
    with pytest.raises(ValueError, match="set lora: null too"):
        Model(train="full")


def test_adapters_are_in_the_type_of_the_base_and_the_head_in_fp32(folder: Path) -> None:
    trained = built_with(folder, dtype=torch.bfloat16).trainable()
    assert {p.dtype for name, p in trained.items() if "lora_" in name} == {torch.bfloat16}
    assert trained["head.0.weight"].dtype == torch.float32


def test_new_parameters_depend_on_the_seed_alone(folder: Path) -> None:
    torch.manual_seed(1)
    first = built_with(folder, seed=3).trainable()
    drawn = torch.rand(1)
    torch.manual_seed(1)
    torch.rand(7)
    second, other = built_with(folder, seed=3).trainable(), built_with(folder, seed=4).trainable()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), drawn)  # building draws from a generator of its own


def test_fresh_adapters_change_nothing_and_merged_equals_unmerged(folder: Path) -> None:
    backbone = load(folder)
    (layout,) = pack([Tokens([2, 7, 9, 30, 4]), Tokens([2, 8])], 16, 64, 0)
    with torch.no_grad():
        plain = backbone(layout)
        adapters = add_lora(backbone, Lora(rank=4, alpha=8))
        backbone.eval()
        assert torch.equal(backbone(layout), plain)
        generator = torch.Generator().manual_seed(0)
        for name, parameter in backbone.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
        unmerged = backbone(layout)
        backbone.model = adapters.merge_and_unload()
        merged = backbone(layout)
    assert (unmerged - plain).abs().max() > 0.1
    torch.testing.assert_close(merged, unmerged, rtol=0, atol=2e-5)
    assert not any("lora" in name for name, _ in backbone.named_parameters())


def test_wrong_names_and_too_many_layers_say_what_there_is(folder: Path) -> None:
    with pytest.raises(InputError, match=r"^model\.lora\.modules: the base has no 'query'; it has down_proj, "):
        add_lora(load(folder), Lora(modules=("q_proj", "query")))
    with pytest.raises(InputError, match=r"^model\.lora\.last_layers: 5 requested, the base has 4 layers"):
        add_lora(load(folder), Lora(last_layers=5))
    with pytest.raises(InputError, match=r"^model\.lora\.modules: "):
        add_lora(load(folder), Lora(modules=()))


@pytest.mark.parametrize("architecture", sorted(BUILDERS))
def test_gradients_reach_the_adapters_of_every_layer_of_every_family(tmp_path: Path, architecture: str) -> None:
    backbone = load_backbone(write_tiny(tmp_path, architecture), causal=False, dtype=torch.float32).train()
    names = linear_names(backbone, Lora(rank=2))
    assert {int(name.split(".")[1]) for name in names} == set(range(len(backbone.layers)))
    add_lora(backbone, Lora(rank=2))
    generator = torch.Generator().manual_seed(0)
    texts = [Tokens(torch.randint(4, 390, (n,), generator=generator).tolist()) for n in (9, 20, 5)]
    weights = torch.randn(backbone.hidden_size, generator=generator)
    sum((backbone(layout) @ weights).square().sum() for layout in pack(texts, 32, 64, 0)).backward()
    # lora_B starts at zero, so that lora_A has no gradient yet.
    gradients = {name: p.grad for name, p in backbone.model.named_parameters() if "lora_B" in name}
    assert len(gradients) == len(names)
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients.values())


@pytest.mark.parametrize(("share", "first"), [(0.25, 3), (0.34, 3), (0.5, 2), (0.99, 0), (0.01, 3), (2.0, 2)])
def test_a_share_of_the_layers_is_the_upper_part(folder: Path, share: float, first: int) -> None:
    assert {layer for layer, _ in adapted(built_with(folder, last_layers=share))} == set(range(first, 4))
    for wrong in (1.5, 0, -1):
        with pytest.raises(ValueError, match="last_layers"):
            Lora(last_layers=wrong)


def trained_by_chance(built: EmbeddingModel, seed: int = 0) -> None:
    """Move every trained value a little, as training does."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in built.trainable().values():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.05 * noise.to(parameter.dtype))


KINDS: dict[str, dict[str, Any]] = {
    "lora": {"lora": {"rank": 4}},
    "rslora": {"lora": {"rank": 4, "rslora": True}},
    "dora": {"lora": {"rank": 4, "dora": True}},
    "rslora and dora on the upper half": {"lora": {"rank": 4, "rslora": True, "dora": True, "last_layers": 0.5}},
    "full": {"lora": None, "train": "full"},
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_saved_model_gives_the_trained_ones_vectors(folder: Path, kind: str, tmp_path: Path) -> None:
    recipe = Recipe.model_validate(
        {
            "name": "r",
            "model": {"base": str(folder), "attention": "causal", "prompts": "none", **KINDS[kind]},
            "stages": [{"data": [{"name": "d", "path": "d"}], "budget": {"steps": 1}}],
        }
    )
    built = build(recipe.model, folder, dtype=torch.float32)
    plain = Embedder(built, name="x", fingerprint="x", max_tokens=48).encode(TEXTS)
    trained_by_chance(built)
    unmerged = Embedder(built, name="x", fingerprint="x", max_tokens=48).encode(TEXTS)
    assert (plain * unmerged).sum(1).min() < 0.99
    base = resolve_base(str(folder))
    trained = {name: parameter.detach().clone() for name, parameter in built.trainable().items()}
    save_model(tmp_path / "model", recipe, base, trained, data={}, name="x")
    merged = Embedder.load(tmp_path / "model", dtype="fp32").encode(TEXTS)
    assert (merged * unmerged).sum(1).min() >= 0.99999
    assert (tmp_path / "adapter").exists() == (kind != "full")
    if kind != "full":  # peft itself opens what we wrote as an adapter
        backbone = load(folder)
        backbone.model = PeftModel.from_pretrained(backbone.model, str(tmp_path / "adapter")).merge_and_unload()
        (layout,) = pack(built.tokenizer.encode([Prompted("", TEXTS[0])], 48), 16, 64, 0)
        with torch.no_grad():
            vector = torch.nn.functional.normalize(backbone(layout).mean(dim=0), dim=0)
        assert float(vector @ torch.from_numpy(merged[0])) >= 0.99999


def test_scaling_is_that_of_the_papers(folder: Path) -> None:
    def update(**lora: Any) -> tuple[torch.Tensor, torch.Tensor]:
        built = built_with(folder, alpha=6.0, modules=("q_proj",), **lora)
        trained_by_chance(built)
        weights = dict(built.encoder.backbone.named_parameters())
        name = next(name for name in weights if "lora_A" in name).rsplit(".lora_A", 1)[0]
        ends = ("base_layer.weight", "lora_A.default.weight", "lora_B.default.weight")
        frozen, a, b = (weights[f"{name}.{end}"] for end in ends)
        x = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            found = built.encoder.backbone.get_submodule(name)(x)
            moved = frozen + 6.0 / (2.0**0.5 if lora.get("rslora") else 2.0) * (b @ a)
            if lora.get("dora"):
                magnitude = weights[f"{name}.lora_magnitude_vector.default.weight"]
                moved = magnitude[:, None] * moved / moved.norm(dim=1, keepdim=True)
            return found, x @ moved.T

    for options in ({}, {"rslora": True}, {"dora": True}, {"rslora": True, "dora": True}):
        found, expected = update(**options)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


class Held:
    """What autograd holds of one tensor; gone when autograd lets go of it."""

    def __init__(self, tensor: torch.Tensor, layer: int):
        self.tensor, self.layer = tensor, layer


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("last", [1, 3])
def test_autograd_keeps_nothing_below_the_first_adapted_layer(folder: Path, last: int, checkpointing: bool) -> None:
    backbone = built_with(folder, last_layers=last).encoder.backbone
    if checkpointing:
        backbone.use_gradient_checkpointing()
    backbone.train()
    running: list[int] = [-1]
    held: weakref.WeakSet[Held] = weakref.WeakSet()
    for number, layer in enumerate(backbone.layers):
        layer.register_forward_pre_hook(lambda *_, n=number: running.__setitem__(0, n))

    def keep(tensor: torch.Tensor) -> Held:
        found = Held(tensor, running[0])
        held.add(found)
        return found

    (layout,) = pack([Tokens([2, 7, 9, 30, 4]), Tokens([2, 8])], 16, 64, 0)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda found: found.tensor):
        states = backbone(layout)
    gc.collect()
    assert {found.layer for found in held} == set(range(4 - last, 4))
    states.square().sum().backward()
