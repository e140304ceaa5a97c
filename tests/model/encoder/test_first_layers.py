"""`model.layers`: the base's first layers are a model of their own, wherever it is built, trained, saved and opened."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_model import write_tiny
from tiny_run import write_rows_file
from transformers import AutoModel

from gemma4vec.errors import InputError
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.model.backbone.architectures import text_config
from gemma4vec.model.backbone.backbone import load_backbone
from gemma4vec.model.encoder.outline import outline_encoder
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.model.packing.packed_batch import Tokens, pack
from gemma4vec.recipe.load import load_recipe
from gemma4vec.recipe.schema import Model, Recipe
from gemma4vec.training.estimate.dry_run import estimate
from gemma4vec.training.run import start_run, train_run

TEXTS = ["open the file", "a socket that waits", "sort a list of names by length and then once more by their age"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("layers")
    for architecture in ("llama", "gemma3"):
        write_tiny(made / architecture, architecture, layers=4)
    write_rows_file(made / "rows.jsonl")
    return made


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_states_are_those_of_the_library_after_so_many_layers(place: Path, architecture: str, layers: int) -> None:
    ids = [3, 8, 21, 5, 30, 11, 9, 4, 40, 17, 12, 33]  # longer than the window of 8
    ours = load_backbone(place / architecture, causal=True, dtype=torch.float32, layers=layers).eval()
    library = AutoModel.from_pretrained(place / architecture, attn_implementation="eager", dtype=torch.float32).eval()
    entering: list[torch.Tensor] = []  # what the first layer that is left out gets, before the final norm
    library.layers[layers].register_forward_pre_hook(
        lambda _, given, named: entering.append(given[0] if given else named["hidden_states"]), with_kwargs=True
    )
    with torch.no_grad():
        library(torch.tensor([ids]))
        found = ours(pack([Tokens(ids)], 32, 32, 0)[0])
        torch.testing.assert_close(found.reshape(-1, found.shape[-1])[: len(ids)], library.norm(entering[0])[0])
    assert len(ours.layers) == ours.config.num_hidden_layers == layers


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_all_layers_are_the_base_itself(place: Path, architecture: str) -> None:
    whole = text_config(place / architecture)
    assert text_config(place / architecture, 4).to_dict() == whole.to_dict()
    assert text_config(place / architecture, 3).num_hidden_layers == 3


def recipe_of(place: Path, **model: Any) -> Recipe:
    stage = {
        "data": [{"name": "rows", "path": str(place / "rows.jsonl")}],
        "batch": {"rows": 4},
        "layout": {"compile": False},
        "optimizer": {"learning_rate": 0.01, "warmup_steps": 0, "schedule": "constant"},
        "budget": {"steps": 1},
    }
    return load_recipe({"name": "cut", "model": {"dtype": "fp32", "max_tokens": 40, **model}, "stages": [stage]})


def train(recipe: Recipe, home: Path) -> RunFolder:
    run = start_run(recipe, home)
    train_run(run, recipe)
    return run


@pytest.fixture(scope="module")
def run(place: Path) -> RunFolder:
    model = {"base": str(place / "gemma3"), "layers": 2, "lora": {"rank": 2}}
    return train(recipe_of(place, **model), place / "runs")


def test_a_trained_model_has_these_layers_alone_and_opens_elsewhere_as_the_same(run: RunFolder) -> None:
    from sentence_transformers import SentenceTransformer

    config = json.loads((run.model / "config.json").read_text())
    assert config["num_hidden_layers"] == 2 and len(config["layer_types"]) == 2
    ours = Embedder.load(run.model, dtype="fp32").encode_query(TEXTS)
    plain = SentenceTransformer(str(run.model), device="cpu", trust_remote_code=True)
    np.testing.assert_allclose(ours, plain.encode_query(TEXTS, normalize_embeddings=True), atol=1e-5)


def test_a_run_that_starts_from_it_carries_them_on(run: RunFolder, place: Path) -> None:
    second = recipe_of(place, start=str(run.path), lora={"rank": 2})
    assert second.model.layers == 2
    assert json.loads((train(second, place / "runs").model / "config.json").read_text())["num_hidden_layers"] == 2
    with pytest.raises(InputError, match=r"model\.layers is 1, and 2 in its start"):
        recipe_of(place, start=str(run.path), layers=1)


def test_a_dry_run_counts_and_measures_them_alone(place: Path) -> None:
    whole, half = (estimate(recipe_of(place, base=str(place / "gemma3"), layers=layers)) for layers in (None, 2))
    assert (whole.layers, half.layers) == (4, 2)
    adapters = [sum(found.parameters.trainable.values()) for found in (whole, half)]
    assert adapters[0] == 2 * adapters[1]


def test_more_than_there_are(place: Path) -> None:
    model = Model.model_validate({"attention": "causal", "layers": 5})
    with pytest.raises(InputError, match=r"model\.layers: 5, and the base has 4; give at most 4"):
        outline_encoder(model, place / "llama")


def test_layers_that_lean_on_others(tmp_path: Path) -> None:
    base = write_tiny(tmp_path, "gemma4_text")
    with pytest.raises(InputError, match=r"model\.layers: the layers of a 'gemma4_text' lean on each other"):
        outline_encoder(Model.model_validate({"layers": 1}), base)


def test_what_is_left_out_on_purpose_is_no_surprise(place: Path, log_lines: list[str]) -> None:
    outline_encoder(Model.model_validate({"attention": "causal", "layers": 1}), place / "llama")
    assert not [line for line in log_lines if "left out" in line]
