"""Adapters: on the layers that the recipe names, nowhere else, and gone without a trace when merged."""

from pathlib import Path
from typing import Any

import pytest
import torch

from gemma4vec.errors import InputError
from gemma4vec.model.backbone import Backbone, load_backbone
from gemma4vec.model.build import Built, build
from gemma4vec.model.lora import add_lora, linear_names
from gemma4vec.model.packing import Tokens, packed
from gemma4vec.recipe.schema import Head, Lora, Model
from tiny_model import BUILDERS, write_tiny

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@pytest.fixture(scope="module", params=["gemma3", "llama"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp(request.param), request.param, layers=4)


def load(folder: Path) -> Backbone:
    return load_backbone(folder, causal=True, dtype=torch.float32)


def built_with(folder: Path, seed: int = 0, dtype: torch.dtype = torch.float32, **lora: Any) -> Built:
    model = Model(base=str(folder), lora=Lora(rank=2, **lora), head=Head(widths=(5,)))
    return build(model, folder, dtype=dtype, seed=seed)


def adapted(built: Built) -> set[tuple[int, str]]:
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
    without = build(Model(base=str(folder), lora=None), folder, dtype=torch.float32)
    assert len(without.trainable()) == len(list(without.encoder.parameters()))


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
    (layout,) = packed([Tokens([2, 7, 9, 30, 4]), Tokens([2, 8])], 16, 64, 0)
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
    with pytest.raises(InputError, match=r"^model\.lora\.last_layers: 5 asked for, the base has 4 layers"):
        add_lora(load(folder), Lora(last_layers=5))
    with pytest.raises(InputError, match=r"^model\.lora\.modules: "):
        add_lora(load(folder), Lora(modules=()))


@pytest.mark.parametrize("family", sorted(BUILDERS))
def test_gradients_reach_the_adapters_of_every_layer_of_every_family(tmp_path: Path, family: str) -> None:
    backbone = load_backbone(write_tiny(tmp_path, family), causal=False, dtype=torch.float32).train()
    names = linear_names(backbone, Lora(rank=2))
    assert {int(name.split(".")[1]) for name in names} == set(range(len(backbone.layers)))
    add_lora(backbone, Lora(rank=2))
    generator = torch.Generator().manual_seed(0)
    texts = [Tokens(torch.randint(4, 390, (n,), generator=generator).tolist()) for n in (9, 20, 5)]
    weights = torch.randn(backbone.hidden_size, generator=generator)
    sum((backbone(layout) @ weights).square().sum() for layout in packed(texts, 32, 64, 0)).backward()
    # lora_B starts at zero, so that lora_A has no gradient yet.
    gradients = {name: p.grad for name, p in backbone.model.named_parameters() if "lora_B" in name}
    assert len(gradients) == len(names)
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients.values())
