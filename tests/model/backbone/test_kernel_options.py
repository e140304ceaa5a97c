"""Each faster way can be turned off, and then the library's own is taken; attention by blocks equals the plain one."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import write_tiny
from torch.nn.attention import flex_attention
from traced import trace_only
from transformers.activations import GELUTanh
from transformers.integrations import flex_attention as library_flex

from gemma4vec.errors import InputError
from gemma4vec.model.backbone import attention
from gemma4vec.model.backbone.backbone import Backbone, load_backbone
from gemma4vec.model.backbone.gelu import SigmoidGelu
from gemma4vec.model.backbone.kernel_options import DEFAULTS, fast_paths
from gemma4vec.model.packing.packed_batch import PackedBatch, Tokens, pack
from gemma4vec.recipe.load import parse_recipe
from gemma4vec.recipe.schema import FastPaths

RECIPE = """
name: a
stages:
  - {data: [{name: a, path: a.jsonl}], budget: {steps: 1}, layout: {fast_paths: {fused_rotary: false}}}
  - {data: [{name: a, path: a.jsonl}], budget: {steps: 1}}
"""


def test_what_is_not_asked_for_is_the_devices_own() -> None:
    assert fast_paths("cpu") == DEFAULTS["cpu"] and fast_paths("cuda") == DEFAULTS["cuda"]
    asked = FastPaths(fused_rotary=False, fused_lora=True)
    assert fast_paths("cpu", asked) == replace(DEFAULTS["cpu"], fused_rotary=False)
    assert fast_paths("cuda", asked) == replace(DEFAULTS["cuda"], fused_lora=True)
    assert {*FastPaths.model_fields, "single_rows"} == set(vars(DEFAULTS["cpu"]))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="no backward pass for it on a CPU"):
        fast_paths("cpu", FastPaths(flex_attention=True))
    with pytest.raises(InputError, match=r"stages\.1\.layout\.fast_paths: other than the first stage's"):
        parse_recipe(RECIPE, "my.yaml")


def texts() -> list[Tokens]:
    generator = torch.Generator().manual_seed(0)
    return [Tokens(torch.randint(4, 390, (n,), generator=generator).tolist()) for n in (9, 7, 16, 12, 3, 8, 5, 2, 4)]


@pytest.mark.slow
def test_turned_off_compiled_layers_are_the_librarys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace_only(monkeypatch)
    layout = pack(texts(), 16, 64, 0)[0]
    states = {}
    for on in (True, False):
        backbone = load_backbone(write_tiny(tmp_path, "gemma3", layers=2), causal=True, dtype=torch.float32)
        backbone.fast = replace(
            DEFAULTS["cpu"],
            **dict.fromkeys(("matmul_attention", "sigmoid_gelu", "fused_rotary", "last_token_layer"), on),
        )
        backbone.compile_layers()
        states[on] = backbone(layout)
        kinds = {type(module) for module in backbone.modules()}
        assert (SigmoidGelu in kinds, GELUTanh in kinds) == (on, not on)
        assert sys.modules[type(backbone.model).__module__].rotate_half.__module__.startswith("gemma4vec") == on
        assert backbone.supports_last_token_only(layout) == on
        assert backbone.config._attn_implementation == (attention.NAME if on else "sdpa")
    torch.testing.assert_close(states[True], states[False], rtol=0, atol=1e-4)


def test_a_single_row_is_compiled_where_a_server_asks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace_only(monkeypatch)
    layout = pack(texts()[:2], 16, 64, 0)[0]
    assert layout.input_ids_RC.shape[0] == 1
    states, attentions = {}, {}
    for on in (True, False):
        backbone = load_backbone(write_tiny(tmp_path, "gemma3", layers=2), causal=True, dtype=torch.float32)
        backbone.fast = replace(DEFAULTS["cpu"], single_rows=on)
        backbone.compile_layers()
        states[on], attentions[on] = backbone(layout), backbone.config._attn_implementation
    assert attentions == {True: attention.NAME, False: "sdpa"}
    torch.testing.assert_close(states[True], states[False], rtol=0, atol=1e-4)


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize(
    ("architecture", "causal"), [("gemma3", True), ("gemma3", False), ("t5gemma", False), ("llama", True)]
)
def test_attention_by_blocks_equals_the_plain_one_in_values_and_gradients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str, causal: bool, share: bool
) -> None:
    """On a CPU torch computes it densely, by the same mask; it refuses a backward pass that it has."""
    if share and not causal:
        pytest.skip("beginnings are shared where attention is causal")
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *_: None)
    monkeypatch.setattr(library_flex, "is_torchdynamo_compiling", lambda: True)  # so that it does not compile it itself
    begun = [Tokens([*range(5, 13), *text.ids], prompt=8) for text in texts()] if share else texts()
    layouts = pack(begun, 64, 192, 0, share=share)
    assert any(layout.shared for layout in layouts) == share
    found = []
    for flex in (False, True):
        backbone = load_backbone(write_tiny(tmp_path, architecture, layers=2), causal=causal, dtype=torch.float32)
        backbone.fast = replace(backbone.fast, flex_attention=flex)
        found.append(values_and_gradients(backbone, layouts))
        assert (backbone.config._attn_implementation == attention.FLEX) == flex
    for plain, blocks in zip(*found, strict=True):
        assert float((plain - blocks).detach().norm()) <= 1e-5 * float(plain.detach().norm())


def values_and_gradients(backbone: Backbone, layouts: list[PackedBatch]) -> list[Any]:
    states = [backbone(layout) for layout in layouts]
    sum(state.pow(3).sum() for state in states).backward()
    return states + [p.grad for p in backbone.parameters() if p.grad is not None]


def test_blocks_without_a_pair_are_left_out() -> None:
    mask = torch.zeros(1, 1, 512, 512, dtype=torch.bool)
    mask[..., :128, :128] = mask[..., 384:, 384:] = True
    blocks = attention.block_mask(mask)
    assert blocks.sparsity() == pytest.approx(100 * (1 - 2 / 16))
