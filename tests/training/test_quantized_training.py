"""Training with fake quantization: what is saved is on the grid and was evaluated; a run that was cut off goes on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_model
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize
from safetensors.torch import load_file
from tiny_model import write_tiny
from tiny_run import write_rows_file

from gemma4vec.errors import InputError, WorkError
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.model.adapters.fake_quantize import FakeQuantization
from gemma4vec.model.save.quantization import scheme_of
from gemma4vec.model.save.read_model import read_settings
from gemma4vec.recipe.load import load_recipe, parse_recipe
from gemma4vec.recipe.recorded.fingerprint import recipe_id
from gemma4vec.recipe.schema import Recipe
from gemma4vec.training import loop
from gemma4vec.training.engine.checkpoint import latest_checkpoint, trained_weights
from gemma4vec.training.monitoring.weight_snapshots import checkpoint_models, kept_checkpoints
from gemma4vec.training.prepare_run import check_inputs
from gemma4vec.training.run import start_run, train_run

TEXT = """
name: quantized
model: {{base: {base}, dtype: {dtype}, max_tokens: 48, {trained}}}
stages:
  - name: quantize
    quantize: {{scheme: q4_0}}
    data: [{{name: rows, path: {rows}}}]
    task: {{temperature: 0.1}}
    batch: {{rows: 4, accumulate: 2}}
    layout: {{row_tokens: 32, tokens_per_forward: 128, compile: false}}
    optimizer: {{learning_rate: 0.01, warmup_steps: 1}}
    budget: {{steps: 4}}
    evaluation: {{checkpoint_seconds: 0}}
"""
TRAINED = {
    "lora": "lora: {rank: 4}",
    "full": "lora: null, train: full, train_embeddings: false",
    "embeddings": "lora: null, train: full",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = tmp_path_factory.mktemp("quantized")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tiny_model.COMMON, "intermediate_size", 64)
        write_tiny(made / "base", "gemma3", layers=2)
    write_rows_file(made / "rows.jsonl")
    yield made


def recipe_of(folder: Path, trained: str = "lora", dtype: str = "fp32", *overrides: str) -> Recipe:
    text = TEXT.format(base=folder / "base", rows=folder / "rows.jsonl", dtype=dtype, trained=TRAINED[trained])
    return parse_recipe(text, "recipe", overrides)


def saved_matrices(model: Path) -> dict[str, torch.Tensor]:
    weights = load_file(model / "model.safetensors")
    return {name: value for name, value in weights.items() if value.ndim == 2}


@pytest.mark.parametrize(
    ("trained", "dtype"),
    [("lora", "bf16"), pytest.param("full", "fp32", marks=pytest.mark.slow), ("embeddings", "bf16")],
)
def test_the_saved_model_is_on_ggufs_grid_and_its_checkpoints_are_scored_quantized(
    folder: Path, tmp_path: Path, trained: str, dtype: str
) -> None:
    recipe = recipe_of(folder, trained, dtype)
    run = start_run(recipe, tmp_path)
    model = train_run(run)
    matrices = saved_matrices(model)
    assert len(matrices) == 2 * 7 + 1
    for name, value in matrices.items():
        again = dequantize(quantize(value.numpy(), GGMLQuantizationType.Q4_0), GGMLQuantizationType.Q4_0)
        assert value.dtype == torch.float32 and np.array_equal(again, value.numpy()), name
    settings = read_settings(model)
    assert scheme_of(settings) == "q4_0" and settings["quantization"]["trained"] is True
    assert "trained for it with fake quantization" in (model / "README.md").read_text()
    (one,) = kept_checkpoints(run, recipe)
    ((_, embedder),) = checkpoint_models(run, recipe, [one])
    base = load_file(folder / "base" / "model.safetensors")
    vectors = embedder.encode_query(["read the file"])
    assert np.isfinite(vectors).all()
    changed = 0
    for name, parameter in embedder.encoder.backbone.model.named_parameters():
        if "lora" in name or name not in matrices or (name == "embed_tokens.weight" and trained == "embeddings"):
            continue
        assert torch.equal(parameter, matrices[name].to(parameter.dtype)), name
        changed += not torch.equal(base[f"model.{name}"], matrices[name])
    assert changed or trained == "lora"


def test_a_model_that_is_not_the_evaluated_one_is_not_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = FakeQuantization.weights

    def one_value_off(self: FakeQuantization) -> dict[str, torch.Tensor]:
        found = real(self)
        name = "layers.1.mlp.up_proj.weight"
        return found | {name: found[name] + torch.eye(*found[name].shape) * 0.5}

    monkeypatch.setattr(FakeQuantization, "weights", one_value_off)
    run = start_run(recipe_of(folder), tmp_path)
    with pytest.raises(
        WorkError, match=r"layers\.1\.mlp\.up_proj\.weight: what was written differs from what was eval"
    ):
        train_run(run)
    assert not run.model.exists()
    monkeypatch.setattr(FakeQuantization, "weights", real)
    assert (train_run(RunFolder.open(run.path)) / "model.safetensors").is_file()


@pytest.mark.parametrize("trained", ["lora", pytest.param("full", marks=pytest.mark.slow)])
def test_weights_are_quantized_once_a_step_and_a_cut_off_run_goes_on_to_the_same_model(
    folder: Path, tmp_path: Path, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(folder, trained)
    whole = start_run(recipe, tmp_path / "whole")
    calls: list[int] = []
    real, refresh = loop._train_step, FakeQuantization.refresh

    def counted(self: FakeQuantization, masters: Any) -> None:
        calls.append(1)
        refresh(self, masters)

    monkeypatch.setattr(FakeQuantization, "refresh", counted)
    expected = train_run(whole)
    assert len(calls) == 1 + 4  # at the start, and after each step of two micro-batches
    monkeypatch.setattr(FakeQuantization, "refresh", refresh)
    cut = start_run(recipe, tmp_path / "cut")

    def stop_at_third(stage: Any, optimizer: Any, batches: Any, progress: Any, budget: Any) -> None:
        if progress.step == 2:
            raise KeyboardInterrupt
        real(stage, optimizer, batches, progress, budget)

    monkeypatch.setattr(loop, "_train_step", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        train_run(cut)
    monkeypatch.setattr(loop, "_train_step", real)
    found = train_run(RunFolder.open(cut.path))
    for name, value in load_file(expected / "model.safetensors").items():
        assert torch.equal(load_file(found / "model.safetensors")[name], value), name
    losses = [[event["loss"] for event in run.events("step")] for run in (whole, RunFolder.open(cut.path))]
    assert losses[0] == losses[1] and len(losses[0]) == 4
    checkpoint = latest_checkpoint(whole.checkpoints / "0-quantize")
    assert checkpoint is not None
    if trained == "full":  # the checkpoint holds the unquantized weights
        name = "layers.0.mlp.up_proj.weight"
        assert not torch.equal(trained_weights(checkpoint)[f"backbone.model.{name}"], saved_matrices(expected)[name])


def test_a_stage_before_it_trains_plain_weights(folder: Path, tmp_path: Path) -> None:
    tree = recipe_of(folder).model_dump(mode="json")
    first = tree["stages"][0] | {"name": "first", "quantize": None, "budget": {"steps": 2}}
    run = start_run(load_recipe(tree | {"stages": [first, *tree["stages"]]}), tmp_path)
    assert scheme_of(read_settings(train_run(run))) == "q4_0"


def test_what_cannot_be_trained_is_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    for change, line in {
        "model.lora.dora=true": "model.lora.dora: .* set model.lora.dora=false",
        "model.lora.dropout=0.1": "model.lora.dropout: .* set model.lora.dropout=0",
        "model.dtype=fp16": "model.dtype",
        "stages.0.quantize.scheme=q5": "stages.0.quantize.scheme",
        "stages.0.task={kind: masked_next_token}": "quantize: it is for contrast",
    }.items():
        with pytest.raises(InputError, match=line):
            recipe_of(folder, "lora", "fp32", change)
    alone = recipe_of(folder, "lora", "fp32", "stages.0.task.terms=[{kind: matching, teacher: start}]")
    with pytest.raises(InputError, match=r"stages\.0\.task\.terms\.0\.teacher: start is the model of model\.start"):
        check_inputs(alone)
    tree = recipe_of(folder).model_dump(mode="json")
    with pytest.raises(InputError, match=r"stages\.1\.quantize: an earlier stage has another value"):
        load_recipe(tree | {"stages": [*tree["stages"], tree["stages"][0] | {"name": "after", "quantize": None}]})
    base = write_tiny(tmp_path / "odd", "gemma3", layers=2)  # rows of 48 values
    with pytest.raises(InputError, match=r"stages\.0\.quantize: q4_0: the rows of layers\.0\.mlp\.down_proj\.weight"):
        train_run(start_run(recipe_of(folder, "lora", "fp32", f"model.base={base}"), tmp_path))


def test_the_key_does_not_rename_older_recipes(folder: Path) -> None:
    plain = recipe_of(folder, "lora", "fp32", "stages.0.quantize=null")
    assert recipe_id(plain) != recipe_id(recipe_of(folder))
    tree = plain.model_dump(mode="json")
    del tree["stages"][0]["quantize"]
    assert recipe_id(load_recipe(tree)) == recipe_id(plain)
