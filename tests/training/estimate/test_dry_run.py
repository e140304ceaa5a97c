"""A dry run agrees with what a real model and a real run give, and loads no weight."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
import transformers
from tiny_model import write_tiny
from tiny_run import RECIPE, write_rows_file

from gemma4vec.cli.main import execute
from gemma4vec.model.backbone.architectures import text_config
from gemma4vec.model.backbone.backbone import Backbone
from gemma4vec.model.backbone.meta_model import empty_backbone, layer_kinds, representative_layers, shallow_config
from gemma4vec.model.encoder.build import build
from gemma4vec.model.packing.packed_batch import PackedBatch
from gemma4vec.recipe import schema
from gemma4vec.recipe.load import load_recipe
from gemma4vec.training.estimate import shallow as shallow_module
from gemma4vec.training.estimate.dry_run import Estimate, estimate, steps_of
from gemma4vec.training.run import start_run, train_run


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("estimate")
    base = write_tiny(folder / "base", "gemma3", layers=6)
    file = folder / "recipe.yaml"
    file.write_text(RECIPE.format(base=base, rows=write_rows_file(folder / "rows.jsonl")))
    return file


def estimated(file: Path, *changes: str, measure_compiled: bool = False) -> Estimate:
    return estimate(load_recipe(file, list(changes)), measure_compiled=measure_compiled)


def test_no_weight_is_loaded(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", never)
    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", never)
    monkeypatch.setattr(safetensors, "safe_open", never)
    monkeypatch.setattr(torch, "load", never)
    assert execute(["train", str(recipe_file), "--dry-run", "--json", "--out", str(tmp_path / "out")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["steps"] == 6 and found["fits"]["this_machine"]["fits"] is True
    assert not (tmp_path / "out").exists()
    assert execute(["train", str(recipe_file), "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) < 160
    assert any(line.startswith("  GPUs of     16 GB fits") for line in lines)


def test_the_weights_may_be_missing(recipe_file: Path, tmp_path: Path) -> None:
    given = Path(load_recipe(recipe_file).model.base)
    for file in given.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    found = estimated(recipe_file, f"model.base={tmp_path}")
    assert not found.base.ready and found.base.weight_bytes is None
    assert found.parameters == estimated(recipe_file).parameters


@pytest.mark.parametrize(
    "change",
    [
        "model.lora.last_layers=2",
        "model.lora.modules=[q_proj]",
        "model.head={widths: [8]}",
        "model.lora=null and model.train=full",
        "model.dtype=fp32",
    ],
)
def test_parameters_are_those_of_the_real_model(recipe_file: Path, change: str) -> None:
    changes = change.split(" and ")
    recipe = load_recipe(recipe_file, changes)
    found = estimated(recipe_file, *changes).parameters
    dtype = torch.float32 if recipe.model.dtype == "fp32" else torch.bfloat16
    built = build(recipe.model, recipe.model.base, dtype=dtype)
    assert sum(found.total.values()) == sum(p.numel() for p in built.encoder.parameters())
    assert sum(found.trainable.values()) == sum(p.numel() for p in built.trainable().values())
    assert found.weight_bytes == sum(t.nbytes for t in [*built.encoder.parameters(), *built.encoder.buffers()])
    assert found.trainable_bytes == sum(p.nbytes for p in built.trainable().values())
    assert found.total.get("head", 0) == (8 * 32 if "head" in change else 0)
    assert found.first_trained == (4 if "last_layers" in change else 0)


def test_steps_tokens_and_padding_are_those_of_a_run(recipe_file: Path, tmp_path: Path) -> None:
    recipe = load_recipe(recipe_file)
    run = start_run(recipe, tmp_path)
    train_run(run)
    steps = run.events("step")
    (stage,) = estimated(recipe_file).stages
    # 6 steps of 2 batches; the dry run reads 16 batches, which start with the same.
    assert stage.steps == len(steps) and stage.batches_per_step == 2
    assert stage.tokens_per_step == pytest.approx(steps[-1]["tokens"] / len(steps), rel=0.05)
    padding = sum(step["padding_share"] for step in steps) / len(steps)
    assert stage.reading.padding_share == pytest.approx(padding, abs=0.03)


def test_a_budget_becomes_steps_as_in_a_run() -> None:
    def steps(**budget: Any) -> int:
        stage = schema.Stage.model_validate(
            {"data": [{"name": "x", "path": "x"}], "batch": {"rows": 8, "accumulate": 2}, "budget": budget}
        )
        return steps_of(stage, tokens_per_step=100.0, seconds_per_step=3.0)

    assert steps(steps=7) == 7
    assert steps(rows=160) == 10
    assert steps(rows=3) == 1
    assert steps(tokens=1000) == 10
    assert steps(minutes=1) == 21  # the first step is not on the clock
    assert steps(minutes=1, least_steps=20) == 21 and steps(minutes=1, least_steps=60) == 60


def test_memory_grows_and_shrinks_with_the_recipe(recipe_file: Path) -> None:
    def memory(*changes: str) -> Any:
        return estimated(recipe_file, *changes).stages[0].memory

    plain = memory()
    assert memory("stages.0.layout.gradient_checkpointing=true").activations < 0.5 * plain.activations
    selective = memory("stages.0.layout.gradient_checkpointing=selective")
    assert selective.activations == pytest.approx(plain.activations)  # of uncompiled layers an upper bound is known
    again = estimated(recipe_file, "stages.0.batch.rows=16", "stages.0.layout.grad_cache=true").stages[0]
    assert again.fit.cached and again.memory.activations < 0.5 * memory("stages.0.batch.rows=16").activations
    assert memory("model.lora.last_layers=3").activations < 0.7 * plain.activations
    assert memory("model.lora.last_layers=3").optimizer == pytest.approx(plain.optimizer / 2)
    # fp32 parameters need no fp32 copies: two moments instead of three values.
    assert memory("model.dtype=fp32").optimizer == pytest.approx(plain.optimizer * 2 / 3)
    assert plain.peak == pytest.approx(sum(vars(plain).values()))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("stages.0.task.hard_negatives=3", "error: stages.0.task.hard_negatives: 3 asked for, 24 of 24 rows"),
        ("stages.0.batch.rows=500", "error: stages.0.batch.rows: 500 rows asked for, the data has 24"),
        ("model.base=google/gemma-4-E2B-it", "error: model.base: google/gemma-4-E2B-it is not cached on this machine"),
        ("model.base=/nowhere/model", "error: no model at '/nowhere/model'"),
        ("model.lora.last_layers=7", "error: model.lora.last_layers: 7 requested, the base has 6 layers"),
        ("model.lora.modules=[w]", "error: model.lora.modules: the base has no 'w'"),
    ],
)
def test_what_cannot_run_is_one_line(
    recipe_file: Path, change: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["train", str(recipe_file), change, "--dry-run"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.strip().splitlines()[-1].startswith(line)


def test_a_tokenizer_without_eos_is_refused(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in Path(load_recipe(recipe_file).model.base).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del settings["eos_token"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    words = ["train", str(recipe_file), f"model.base={tmp_path}", "model.readout.name=last_token", "--dry-run"]
    assert execute(words) == 2
    assert "it needs an EOS token" in capsys.readouterr().err


def test_a_run_that_has_begun_is_not_estimated(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["train", "--resume", "latest", "--dry-run"]) == 2
    assert "--dry-run estimates a new run" in capsys.readouterr().err


def test_a_shallow_model_has_every_kind_of_layer() -> None:
    config = transformers.Gemma4TextConfig(
        vocab_size=400,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=10,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        global_head_dim=16,
        num_kv_shared_layers=4,
        layer_types=["sliding_attention", "full_attention"] * 5,
        hidden_size_per_layer_input=4,
        vocab_size_per_layer_input=400,
        use_double_wide_mlp=True,
        pad_token_id=0,
    )
    kinds = layer_kinds(config, first_trained=7)
    chosen = representative_layers(kinds)
    assert {kinds[i] for i in chosen} == set(kinds)
    shallow = shallow_config(config, chosen)
    assert layer_kinds(shallow, first_trained=sum(i < 7 for i in chosen)) == [kinds[i] for i in chosen]
    with torch.device("meta"):
        whole, small = (transformers.AutoModel.from_config(c) for c in (config, shallow))
    for place, number in enumerate(chosen):  # the same shapes, layer by layer
        there = {name: p.shape for name, p in whole.layers[number].named_parameters()}
        assert {name: p.shape for name, p in small.layers[place].named_parameters()} == there


def test_an_empty_backbone_attends_as_the_loaded_one(recipe_file: Path) -> None:
    from gemma4vec.model.backbone.backbone import load_backbone

    path = load_recipe(recipe_file).model.base
    for causal in (True, False):
        empty = empty_backbone(text_config(path), causal=causal, dtype=torch.float32)
        loaded = load_backbone(path, causal=causal, dtype=torch.float32)
        kept = {"architectures", "dtype", "_name_or_path", "name_or_path", "transformers_version"}
        ours, theirs = (
            {k: v for k, v in backbone.config.to_dict().items() if k not in kept} for backbone in (empty, loaded)
        )
        assert ours == theirs and empty.device.type == "meta"


def test_two_stages_add_up(recipe_file: Path) -> None:
    recipe = load_recipe(recipe_file)
    second = recipe.stages[0].model_copy(update={"name": "second", "budget": schema.Budget(steps=2)})
    found = estimate(recipe.model_copy(update={"stages": (recipe.stages[0], second)}))
    assert [stage.steps for stage in found.stages] == [6, 2]
    assert found.largest.memory.peak == max(stage.memory.peak for stage in found.stages)
    assert replace(found, stages=found.stages[:1]).largest is found.stages[0]


def test_a_stage_of_another_kind_before_it_leaves_a_stage_its_rows(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in training, where a contrast after an adaptation sees the rows that it would see alone."""
    recipe = load_recipe(recipe_file, ["model.attention=bidirectional", "model.readout=mean"])
    adaptation = recipe.stages[0].model_copy(
        update={"name": "before", "task": schema.MaskedNextToken(kind="masked_next_token")}
    )
    seeds: dict[str, set[int]] = {"before": set(), recipe.stages[0].name: set()}
    real = shallow_module.make_task

    def make_task(stage: schema.Stage, *arguments: Any, seed: int, **more: Any) -> Any:
        seeds[stage.name].add(seed)
        return real(stage, *arguments, seed=seed, **more)

    monkeypatch.setattr(shallow_module, "make_task", make_task)
    estimate(recipe.model_copy(update={"stages": (adaptation, *2 * recipe.stages)}))
    assert seeds == {"before": {recipe.seed}, recipe.stages[0].name: {recipe.seed, recipe.seed + 1}}


def test_a_readout_of_all_layers_is_measured_with_all_layers(recipe_file: Path) -> None:
    """The mix of six layers and the embeddings keeps seven states, though two layers are trained."""
    mixed, mean = (estimated(recipe_file, f"model.readout={name}").stages[0] for name in ("layer_mix", "mean"))

    def outside(stage: Any) -> float:
        return max(size for (kind, _), size in stage.measured.kept_bytes.items() if kind is None)

    # Each of the 7 states is kept in fp32 at least once for the weights' gradient: 32 values of 4 bytes a token.
    assert outside(mixed) - outside(mean) > 7 * 32 * 4


def test_the_export_is_part_of_the_peak(recipe_file: Path) -> None:
    found = estimated(recipe_file)
    fp32 = 4 * (sum(found.parameters.total.values()) - found.parameters.total["adapters"])
    memory = found.stages[0].memory
    assert found.export_bytes == memory.framework + memory.weights + memory.optimizer + 3 * fp32
    assert found.peak_bytes == max(memory.peak, found.export_bytes)


def test_where_the_compiler_gives_up_layers_are_measured_as_they_are(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As training does: DoRA's layers, for one, cannot be traced."""

    def gives_up(layer: torch.nn.Module, **_: object) -> None:
        def run(*_: object, **__: object) -> None:
            raise torch._dynamo.exc.Unsupported("a layer that\ncannot be traced")

        layer._compiled_call_impl = run

    monkeypatch.setattr(torch.nn.Module, "compile", gives_up)
    (stage,) = estimated(recipe_file, "stages.0.layout.compile=true", measure_compiled=True).stages
    assert not stage.compile.on and "compilation failed: a layer that cannot be traced" in stage.compile.reason
    assert stage.seconds_per_step > 0


def test_a_compiled_readout_of_last_tokens_is_measured_on_whole_layers(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shallow model's last layer stands for others of its kind, which compute every token."""
    asked = []
    plain = Backbone.forward

    def forward(self: Backbone, layout: PackedBatch, *, last_token_only: bool = False, **settings: Any) -> torch.Tensor:
        asked.append(last_token_only)
        return plain(self, layout, last_token_only=last_token_only, **settings)

    monkeypatch.setattr(Backbone, "forward", forward)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda layer, **_: None)  # what is compiled is the same code
    changes = "model.readout=last_token", "stages.0.layout.compile=true"
    (stage,) = estimated(recipe_file, *changes, measure_compiled=True).stages
    assert stage.compile.on and stage.seconds_per_step > 0
    assert asked and not any(asked)


def test_a_second_dry_run_measures_nothing(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = estimated(recipe_file)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("layers were measured")

    monkeypatch.setattr(shallow_module, "measure_layers", never)
    second = estimated(recipe_file, "stages.0.budget.steps=9")
    assert second.stages[0].measured == first.stages[0].measured and second.stages[0].steps == 9
    assert second.stages[0].memory == first.stages[0].memory
    with pytest.raises(AssertionError, match="measured"):
        estimated(recipe_file, "model.lora.rank=3")
