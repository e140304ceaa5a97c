"""A run that starts from a trained model goes on with exactly that model, or says what does not match."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_model import write_tiny
from tiny_run import write_rows_file

from gemma4vec.errors import InputError
from gemma4vec.ledger.lineage import INHERITED
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.model.bases.start import resolve_model
from gemma4vec.model.encoder.build import build
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.recipe.load import dump_recipe, load_recipe, parse_dump
from gemma4vec.recipe.schema import Recipe
from gemma4vec.training.engine.base_files import base_files
from gemma4vec.training.engine.made_from import ChangedInputError
from gemma4vec.training.prepare_run import check_inputs, prepare_run
from gemma4vec.training.run import start_run, train_run

TEXTS = ["open the file", "a socket that waits", "", "sort a list of names by length"]
HEADS = {
    "mean with a head": {"readout": "mean", "head": {"widths": [24, 16], "bias": True}},
    "a readout of ours": {
        "readout": {"name": "latent_attention", "latents": 32, "heads": 2},
        "prompts": "code_retrieval",
    },
    "causal last token": {"readout": "last_token", "attention": "causal"},
}


def recipe_of(model: dict[str, Any], rows: Path, steps: int = 1) -> Recipe:
    stage = {
        "data": [{"name": "rows", "path": str(rows)}],
        "batch": {"rows": 4},
        "layout": {"compile": False},
        "optimizer": {"learning_rate": 0.01, "warmup_steps": 0, "schedule": "constant"},
        "budget": {"steps": steps},
    }
    return load_recipe({"name": "chain", "model": {"dtype": "fp32", **model}, "stages": [stage]})


def train(recipe: Recipe, home: Path) -> RunFolder:
    run = start_run(recipe, home)
    train_run(run, recipe)
    return run


def encode(model: Any) -> np.ndarray:
    return np.asarray(model.encode_query(TEXTS))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("start")
    write_tiny(made / "base", "llama", layers=2)
    write_rows_file(made / "rows.jsonl")
    return made


@pytest.fixture(scope="module", params=HEADS)
def first(request: pytest.FixtureRequest, folder: Path) -> RunFolder:
    model = {"base": str(folder / "base"), "max_tokens": 40, "lora": {"rank": 2}, **HEADS[request.param]}
    return train(recipe_of(model, folder / "rows.jsonl"), folder / "runs" / request.param)


@pytest.mark.parametrize("trained", [{"lora": {"rank": 2}}, {"lora": None, "train": "full"}, {"lora": None}])
def test_before_its_first_step_it_is_its_start(first: RunFolder, folder: Path, trained: dict[str, Any]) -> None:
    recipe = recipe_of({"start": str(first.path), **trained}, folder / "rows.jsonl")
    assert recipe.model.start == str(first.path.resolve() / "model") and recipe.model.max_tokens == 40
    built = build(recipe.model, resolve_model(recipe.model).path, dtype=torch.float32)
    begun = Embedder(built, name="begun", fingerprint="0", max_tokens=40)
    np.testing.assert_array_equal(encode(begun), encode(Embedder.load(first.model, dtype="fp32")))


def test_a_chain_of_three_goes_on_and_knows_its_origin(first: RunFolder, folder: Path) -> None:
    second = train(recipe_of({"start": str(first.path)}, folder / "rows.jsonl"), first.path.parent)
    third = train(
        recipe_of({"start": second.run_id and str(second.path), "lora": None, "train": "full"}, folder / "rows.jsonl"),
        first.path.parent,
    )
    vectors = [encode(Embedder.load(run.model, dtype="fp32")) for run in (first, second, third)]
    assert abs(vectors[0] - vectors[1]).max() > 1e-4 and abs(vectors[1] - vectors[2]).max() > 1e-4
    made = third.manifest["made_from"]
    assert made["model.start"]["path"] == str(second.path.resolve() / "model")
    assert made["model.start"]["weights"] == second.manifest["weights"]
    assert made["model.base"]["weights"] == first.manifest["made_from"]["model.base"]["weights"]
    assert third.manifest["base"]["name"] == str(folder / "base") and second.run_id in third.manifest["parents"]
    assert {first.run_id, second.run_id} <= set(third.manifest[INHERITED]["data"])
    settings = json.loads((third.model / "gemma4vec.json").read_text())
    assert "start" not in settings["model"] and "path" not in settings["made_from"]["model.start"]
    card = (third.model / "README.md").read_text()
    assert (
        f"before: that of `{second.run_id}`" in card and str(folder) not in card.split("## Licence")[0].split("##")[1]
    )


def test_its_dry_run_reads_the_start_and_its_recipe_is_complete(first: RunFolder, folder: Path) -> None:
    recipe = recipe_of({"start": str(first.path), "max_tokens": 44}, folder / "rows.jsonl")
    assert recipe.model.max_tokens == 44
    with base_files(str(recipe.model.start)) as files:
        assert files.ready and files.path == first.model.resolve()
    checked = check_inputs(recipe)
    assert checked.base.path == first.model.resolve() and checked.base.name == str(folder / "base")
    assert parse_dump(dump_recipe(recipe), "again") == recipe


def test_what_the_recipe_says_must_be_the_starts(first: RunFolder, folder: Path) -> None:
    own = load_recipe(first.path / "recipe.yaml").model
    others = {
        "base": "another/base",
        "attention": "bidirectional" if own.attention == "causal" else "causal",
        "readout": "first_token",
        "head": {"widths": [8]},
        "prompts": "none",
    }
    if own.readout.name != "latent_attention":
        del others["readout"]  # without trained weights, it may be another
    if own.head is None:
        del others["head"]
    for key, value in others.items():
        with pytest.raises(InputError, match=rf"model\.{key} is .* in its start .*; leave the key out"):
            recipe_of({"start": str(first.path), key: value}, folder / "rows.jsonl")
    same = {key: own.model_dump(mode="json")[key] for key in others}
    assert recipe_of({"start": str(first.path), **same}, folder / "rows.jsonl").model.readout == own.readout


def test_a_start_without_trained_parts_may_get_some(folder: Path) -> None:
    model = {"base": str(folder / "base"), "max_tokens": 40, "lora": {"rank": 2}}
    plain = train(recipe_of(model, folder / "rows.jsonl"), folder / "runs" / "plain")
    parts = {"readout": {"name": "latent_attention", "latents": 32, "heads": 2}, "head": {"widths": [8]}}
    recipe = recipe_of({"start": str(plain.path), **parts}, folder / "rows.jsonl")
    built = build(recipe.model, resolve_model(recipe.model).path, dtype=torch.float32, seed=1)
    assert built.encoder.dimension == 8 and built.encoder.readout.dimension == 32
    second = train(recipe, folder / "runs" / "plain")
    again = recipe_of({"start": str(second.path)}, folder / "rows.jsonl")
    assert again.model.readout == recipe.model.readout and again.model.head == recipe.model.head


def test_a_changed_start_is_refused_and_so_is_one_that_is_gone(first: RunFolder, folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(first.model, copy)
    recipe = recipe_of({"start": str(copy)}, folder / "rows.jsonl")
    run = start_run(recipe, tmp_path / "runs")
    prepare_run(run, recipe)
    run.event("step", step=1, loss=1.0)
    file = next(copy.rglob("*.safetensors"))
    save_file({name: value * 2 for name, value in load_file(file).items()}, file, {"format": "pt"})
    with pytest.raises(ChangedInputError, match=r"model\.start: the weights of .*copy have changed"):
        prepare_run(run, recipe)
    shutil.rmtree(copy)
    with pytest.raises(InputError, match=r"model\.start: there is no saved model in .*copy"):
        prepare_run(run, recipe)


def test_what_is_no_start_is_one_line(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMMA4VEC_HOME", str(tmp_path / "runs"))
    unfinished = start_run(recipe_of({"base": str(folder / "base"), "lora": None}, folder / "rows.jsonl"))
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "modules.json").write_text("[]")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "gemma4vec.json").write_text('{"model": 3}')
    for name, words in (
        ("nowhere", "there is no run or model folder 'nowhere'"),
        (unfinished.run_id, "has no finished model yet; go on with: gemma4vec train --resume"),
        ("latest", "has no finished model yet"),
        (str(foreign), "was not saved by gemma4vec"),
        (str(damaged), "gemma4vec.json is damaged"),
    ):
        with pytest.raises(InputError, match=words):
            recipe_of({"start": name}, folder / "rows.jsonl")
