"""Bases that cannot be driven are refused by their config alone; of a whole model only the text tower is loaded."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_model import BUILDERS, ENCODERS, write_tiny
from transformers import AutoConfig, AutoModel, BertConfig, GPT2Config, GPTNeoConfig, GPTNeoModel, T5Config

from gemma4vec.errors import InputError, WorkError
from gemma4vec.model.backbone import backbone as backbone_module
from gemma4vec.model.backbone.architectures import (
    ARCHITECTURES,
    ENCLOSING_MODELS,
    model_class,
    read_config,
    set_attention_mode,
    text_config,
    verified_model_types,
)
from gemma4vec.model.backbone.attention_probe import check
from gemma4vec.model.backbone.backbone import load_backbone
from gemma4vec.model.backbone.meta_model import empty_backbone

IDS = torch.tensor([[2, 9, 30, 4, 77, 100, 8, 60, 41, 12, 13, 99, 5, 7]])


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any attempt to load a model fails the test."""

    def refuse(config: object) -> None:
        raise AssertionError("a model is about to be loaded")

    monkeypatch.setattr(backbone_module, "model_class", refuse)


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("architecture", sorted(ENCODERS))
def test_an_encoder_cannot_be_causal(tmp_path: Path, architecture: str) -> None:
    write_tiny(tmp_path, architecture)
    with pytest.raises(InputError, match=r"model\.attention: .* is an encoder.*set model\.attention=bidirectional"):
        load_backbone(tmp_path, causal=True, dtype=torch.float32)


@pytest.mark.usefixtures("no_weights")
def test_an_unverified_type_is_refused_unless_the_user_says_otherwise(tmp_path: Path) -> None:
    GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=50).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"model\.base: model type 'gpt2' was never verified.*allow_untested"):
        load_backbone(tmp_path, causal=True, dtype=torch.float32)
    with pytest.raises(InputError, match="about to be loaded"):
        load_backbone(tmp_path, causal=True, dtype=torch.float32, allow_untested=True)


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("allow_untested", [True, False])
def test_what_no_switch_can_help_is_refused_with_the_reason(tmp_path: Path, allow_untested: bool) -> None:
    tiny = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    BertConfig(**tiny).save_pretrained(tmp_path / "bert")
    T5Config(d_model=8, num_layers=1).save_pretrained(tmp_path / "t5")
    AutoConfig.for_model("mamba", hidden_size=8, num_hidden_layers=1).save_pretrained(tmp_path / "mamba")
    AutoConfig.for_model("qwen3_next", **tiny).save_pretrained(tmp_path / "qwen3_next")
    for kind, reason in {
        "bert": r"model\.base: 'bert' is an encoder \(a masked language model\), not a decoder",
        "t5": r"model\.base: 't5' is an encoder-decoder",
        "mamba": r"model\.base: 'mamba' has layers of linear_attention, which no mask can make bidirectional",
        "qwen3_next": r"model\.base: 'qwen3_next' has layers of linear_attention",
    }.items():
        with pytest.raises(InputError, match=reason):
            load_backbone(tmp_path / kind, causal=False, dtype=torch.float32, allow_untested=allow_untested)


def test_experts_are_refused_unless_the_user_says_otherwise(tmp_path: Path) -> None:
    config = text_config(write_tiny(tmp_path, "gemma4"))
    config.enable_moe_block = True
    with pytest.raises(InputError, match=r"model\.base: 'gemma4_text' with enable_moe_block was never verified"):
        set_attention_mode(config, causal=True)
    assert set_attention_mode(config, causal=True, allow_untested=True)[0].enable_moe_block


def test_every_verified_type_has_a_tiny_model_and_the_reverse(tmp_path: Path) -> None:
    found = set()
    for architecture in BUILDERS:
        folder = write_tiny(tmp_path / architecture, architecture)
        found |= {read_config(folder).model_type, text_config(folder).model_type}
    assert found | {"t5gemma2_encoder"} == set(ARCHITECTURES) | set(
        ENCLOSING_MODELS
    )  # that one is what we save; see test_saving
    assert set(verified_model_types()) < found | {"t5gemma2_encoder"}


@pytest.mark.parametrize(
    "architecture", ["embedding_gemma2", "gemma3_whole", "gemma4", "gemma4_unified", "t5gemma", "t5gemma2"]
)
def test_the_tower_gives_what_the_whole_gives_and_nothing_else_is_loaded(tmp_path: Path, architecture: str) -> None:
    write_tiny(tmp_path, architecture)
    causal = architecture not in ENCODERS
    tower = load_backbone(tmp_path, causal=causal, dtype=torch.float32).eval()
    whole = AutoModel.from_pretrained(tmp_path, dtype=torch.float32).eval()
    with torch.no_grad():
        if architecture in ("t5gemma", "t5gemma2"):
            theirs = whole.get_encoder()(input_ids=IDS, attention_mask=torch.ones_like(IDS)).last_hidden_state
        else:
            theirs = whole(input_ids=IDS).last_hidden_state
        torch.testing.assert_close(tower.library_states(IDS), theirs, rtol=0, atol=1e-5)
    stored = sum(value.numel() for value in load_file(tmp_path / "model.safetensors").values())
    loaded = sum(parameter.numel() for parameter in tower.parameters())
    assert loaded < stored or architecture in ("embedding_gemma2", "gemma4_unified")
    assert not [
        name for name, _ in tower.named_parameters() if "vision" in name or "audio" in name or "decoder" in name
    ]


def test_missing_weights_are_not_made_up(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    write_tiny(tmp_path, "gemma4")
    weights = load_file(tmp_path / "model.safetensors")
    dropped = next(name for name in weights if name.endswith("layers.1.mlp.up_proj.weight"))
    save_file({name: value for name, value in weights.items() if name != dropped}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"model\.base: .* lacks 1 weights .*layers\.1\.mlp\.up_proj\.weight"):
        load_backbone(tmp_path, causal=True, dtype=torch.float32)


@pytest.mark.parametrize("architecture", sorted(BUILDERS))
def test_text_config_reads_no_weights_and_names_the_tower(tmp_path: Path, architecture: str) -> None:
    write_tiny(tmp_path, architecture)
    (tmp_path / "model.safetensors").unlink()
    config = text_config(tmp_path)
    assert config.vocab_size == 400 and config.hidden_size == 32
    with torch.device("meta"):
        assert len(model_class(config)(config).layers) == config.num_hidden_layers


def test_an_untested_type_whose_flag_the_library_ignores_is_caught_by_the_probe(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = GPTNeoConfig(
        hidden_size=16,
        num_layers=2,
        num_heads=2,
        attention_types=[[["global"], 2]],
        vocab_size=50,
        initializer_range=0.3,
        attention_dropout=0.0,
    )
    GPTNeoModel(config).save_pretrained(tmp_path)
    with pytest.raises(WorkError, match="loaded as bidirectional, but a later token does not move an earlier state"):
        check(load_backbone(tmp_path, causal=False, dtype=torch.float32, allow_untested=True))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"query_pre_attn_scalar": -1}, "layers.0.self_attn multiplies its scores by .*query_pre_attn_scalar"),
        ({"attention_dropout": 2.0}, "layers.0.self_attn drops 2.0 of its scores; check attention_dropout"),
    ],
)
def test_attention_that_cannot_be_computed_is_refused(tmp_path: Path, change: dict[str, float], reason: str) -> None:
    path = write_tiny(tmp_path, "gemma3", layers=2)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(InputError, match=reason):
        load_backbone(path, causal=True, dtype=torch.float32)
    config, _, _ = set_attention_mode(text_config(path), causal=True)
    with pytest.raises(InputError, match=reason):
        empty_backbone(config, causal=True, dtype=torch.float32)
