"""A base whose config, tokenizer and weight files do not fit each other is refused in one line, without loading it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import BUILDERS, ENCODERS, write_tiny
from transformers import AddedToken, AutoTokenizer

from gemma4vec.errors import InputError
from gemma4vec.model.encoder.build import build
from gemma4vec.model.encoder.check_config import check_positions, longest_text, read_config
from gemma4vec.model.encoder.outline import outline_encoder
from gemma4vec.recipe.schema import Model
from gemma4vec.text.prompts import Prompted

MODEL = Model.model_validate({"attention": "causal", "readout": "last_token", "lora": {"rank": 2, "dropout": 0.1}})


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("outline") / "base", "llama", layers=2)


@pytest.fixture
def base(written: Path, tmp_path: Path) -> Path:
    """A base of its own for each test: llama, two layers, 400 tokens."""
    return Path(shutil.copytree(written, tmp_path / "base"))


def change_config(base: Path, **values: Any) -> None:
    file = base / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({key: value for key, value in (config | values).items() if value != "gone"}))


def refused(base: Path, model: Model = MODEL) -> str:
    with pytest.raises(InputError) as caught:
        outline_encoder(model, base)
    assert "\n" not in str(caught.value) and str(base) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("architecture", list(BUILDERS))
def test_every_family_passes_and_its_parameters_are_those_of_the_real_model(architecture: str, tmp_path: Path) -> None:
    base = write_tiny(tmp_path, architecture)
    mode = "bidirectional" if architecture in ENCODERS else "causal"
    model = Model.model_validate({"attention": mode, "lora": {"rank": 2}})
    outline, real = outline_encoder(model, base), build(model, base, dtype=torch.float32)
    shapes = [{n: p.shape for n, p in one.encoder.named_parameters()} for one in (outline, real)]
    assert shapes[0] == shapes[1] and outline.encoder.backbone.device.type == "meta"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"vocab_size": 500}, "embed_tokens.weight is 500 x 32 by the config, 400 x 32 in model.safetensors"),
        ({"hidden_size": 64}, "embed_tokens.weight is 400 x 64 by the config, 400 x 32 in"),
        ({"intermediate_size": 40}, "is 40 x 32 by the config, 48 x 32 in"),
        ({"num_hidden_layers": 3}, "lack 9 tensors that its config.json promises, first 'layers.2."),
        ({"num_attention_heads": 3}, "config.json"),
        ({"hidden_size": "32"}, "config.json"),
        ({"hidden_size": None}, "config.json"),
        ({"hidden_size": -1}, "config.json"),
        ({"num_hidden_layers": None}, "config.json"),
        ({"hidden_act": "nothing"}, "config.json"),
        ({"rope_parameters": {"rope_type": "nothing"}}, "config.json"),
        ({"pad_token_id": 400}, "config.json"),
        ({"model_type": "nothing"}, "config.json"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "are quantized (gptq); give the model in bf16"),
    ],
    ids=str,
)
def test_a_config_that_contradicts_itself_or_the_weights(base: Path, values: dict[str, Any], message: str) -> None:
    change_config(base, **values)
    assert message in refused(base)


def test_layers_that_the_config_leaves_out_are_reported(base: Path, log_lines: list[str]) -> None:
    change_config(base, num_hidden_layers=1)
    outline_encoder(MODEL, base)
    assert "have layers up to number 1; its config.json takes the first 1" in log_lines[-1]


def add_tokens(base: Path, change: Callable[[Any], object]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    change(tokenizer)
    tokenizer.save_pretrained(base)


def test_a_tokenizer_with_more_tokens_than_rows(base: Path) -> None:
    size = len(AutoTokenizer.from_pretrained(base))
    add_tokens(base, lambda t: t.add_tokens([f"[ENT{number}]" for number in range(500 - size)]))
    line = refused(base)
    assert f"the tokenizer at {base} has 500 tokens and the embedding 400 rows: token '[ENT" in line
    with pytest.raises(InputError, match="has 500 tokens and the embedding 400 rows"):  # as eval opens a base
        build(MODEL, base, dtype=torch.float32)


def test_a_padding_token_without_a_row(base: Path) -> None:
    size = len(AutoTokenizer.from_pretrained(base))
    add_tokens(
        base,
        lambda t: (t.add_tokens([f"[{n}]" for n in range(400 - size)]), t.add_special_tokens({"pad_token": "[PAD]"})),
    )
    assert "401 tokens and the embedding 400 rows: the padding token '[PAD]' (400) has none" in refused(base)


def test_a_token_for_images_needs_no_row_and_is_read_as_unknown(base: Path) -> None:
    """As a text-only Gemma 3 comes from the hub: 262,145 tokens, 262,144 rows."""
    image = AddedToken("<image_soft_token>", special=True)
    size = len(AutoTokenizer.from_pretrained(base))
    add_tokens(
        base,
        lambda t: (t.add_tokens([f"[{n}]" for n in range(400 - size)]), t.add_tokens([image], special_tokens=True)),
    )
    built = build(MODEL, base, dtype=torch.float32)
    assert built.tokenizer.hf_tokenizer.convert_tokens_to_ids("<image_soft_token>") == 400
    ids = list(built.tokenizer.encode([Prompted("", "a<image_soft_token>")], 16)[0].ids)
    unknown = built.tokenizer.hf_tokenizer.unk_token_id
    assert max(ids) < 400 and ids.count(unknown) == 1


def test_limits_beyond_the_positions(base: Path) -> None:
    change_config(base, max_position_embeddings=64)
    check_positions(64, read_config(base))
    with pytest.raises(InputError, match=r"^model\.max_tokens: 65 tokens, and the base reads 64 .*give at most 64$"):
        check_positions(65, read_config(base))
    assert longest_text({}) is None
    rope = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    assert longest_text({"max_position_embeddings": 64, "rope_parameters": rope}) == 256
