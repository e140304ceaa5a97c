"""Where a dry run's seconds come from: uncompiled layers times a share, compiled layers, or an earlier training."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_code import write_code
from tiny_model import write_tiny
from tiny_run import RECIPE, write_rows_file

from gemma4vec.cli.main import execute
from gemma4vec.data.loading import built_sources
from gemma4vec.data.loading.load_rows import SAMPLED
from gemma4vec.data.pycode.sampled_rows import PyCodeSample, sample_pycode
from gemma4vec.errors import InputError
from gemma4vec.files import cache
from gemma4vec.machine import dtype
from gemma4vec.machine.dtype import DtypeChoice
from gemma4vec.recipe.load import load_recipe
from gemma4vec.training.estimate import compiled_share, layer_costs
from gemma4vec.training.estimate.compiled_share import DEFAULT
from gemma4vec.training.estimate.dry_run import StageEstimate, estimate
from gemma4vec.training.estimate.emulated import is_emulated, slowdown
from gemma4vec.training.estimate.step_record import record_of
from gemma4vec.training.estimate.stored_costs import FOLDER
from gemma4vec.training.run import start_run, train_run

COMPILED = "stages.0.layout.compile=true"


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("costs")
    base = write_tiny(folder / "base", "gemma3", layers=3)
    file = folder / "recipe.yaml"
    file.write_text(RECIPE.format(base=base, rows=write_rows_file(folder / "rows.jsonl")))
    return file


def stage_of(file: Path, *changes: str, measure_compiled: bool = False) -> StageEstimate:
    (stage,) = estimate(load_recipe(file, list(changes)), measure_compiled=measure_compiled).stages
    return stage


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[torch.nn.Module]:
    """The layers that are compiled; they run their own code."""
    compiled: list[torch.nn.Module] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda layer, **_: compiled.append(layer))
    return compiled


def test_a_first_dry_run_compiles_nothing(recipe_file: Path, compilations: list[torch.nn.Module]) -> None:
    stage = stage_of(recipe_file, COMPILED)
    assert compilations == [] and stage.compile.on
    assert stage.source.kind == "uncompiled layers" and not stage.source.here
    assert stage.source.share == pytest.approx(DEFAULT.usual.seconds)
    assert "measured uncompiled" in stage.source.sentence and "--measure-compiled" in stage.source.sentence
    plain = stage_of(recipe_file, "stages.0.layout.compile=false")
    assert plain.source.kind == "layers" and plain.source.sentence == ""
    kept, uncompiled = (sum(one.measured.kept_bytes.values()) for one in (stage, plain))
    outside = sum(size for (kind, _), size in plain.measured.kept_bytes.items() if kind is None)
    # Compiled layers keep attention's probabilities: one for each head and column, in bf16.
    heads, kinds = 4, len(set(plain.measured.kinds))
    probabilities = kinds * heads * plain.reading.columns * 2
    assert kept - outside == pytest.approx(DEFAULT.usual.kept * (uncompiled - outside) + probabilities, rel=0.05)
    assert stage.memory.activations < plain.memory.activations


def test_layers_in_an_emulated_type_are_measured_in_fp32(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    eager = "stages.0.layout.compile=false"
    monkeypatch.setattr(dtype, "_choose_for_cpu", lambda: DtypeChoice(torch.float32, "no bf16 here"))
    monkeypatch.setattr(layer_costs, "is_emulated", is_emulated)
    monkeypatch.setattr(layer_costs, "slowdown", lambda *_: 7.0)
    plain, emulated = (stage_of(recipe_file, eager, f"model.dtype={name}") for name in ("fp32", "bf16"))
    assert plain.source.sentence == "" and plain.source.emulated is None
    assert emulated.source.emulated == 7.0 and "in fp32, times 7: " in emulated.source.sentence
    assert "model.dtype=auto" in emulated.source.sentence
    for place, seconds in plain.measured.seconds.items():  # the same measurement, from its file
        assert emulated.measured.seconds[place] == pytest.approx(7 * seconds)
        assert emulated.measured.kept_bytes[place] == pytest.approx(plain.measured.kept_bytes[place] / 2)
    assert emulated.seconds_per_step > 3 * plain.seconds_per_step


def test_what_an_emulated_type_costs_is_at_least_as_much_as_fp32() -> None:
    assert slowdown(torch.float32, "cpu") >= 1.0
    assert slowdown(torch.bfloat16, "cpu") >= 1.0


def test_what_was_measured_compiled_is_used_for_its_layers_and_its_shares_for_others(
    recipe_file: Path, compilations: list[torch.nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = stage_of(recipe_file, COMPILED, measure_compiled=True)
    assert compilations and first.source.kind == "layers"
    compilations.clear()
    assert stage_of(recipe_file, COMPILED).measured == first.measured
    other = stage_of(recipe_file, COMPILED, "model.readout=last_token")  # the same layers
    assert compilations == [] and other.source.kind == "uncompiled layers" and other.source.here
    assert "measured on this machine" in other.source.sentence
    assert "--measure-compiled" not in other.source.sentence
    assert not stage_of(recipe_file, COMPILED, "model.lora.rank=3").source.here  # other layers


def test_selective_checkpointing_of_compiled_layers_keeps_half(
    recipe_file: Path, compilations: list[torch.nn.Module]
) -> None:
    selective = stage_of(recipe_file, COMPILED, "stages.0.layout.gradient_checkpointing=selective").measured
    plain = stage_of(recipe_file, COMPILED).measured
    for (kind, compilable), size in plain.kept_bytes.items():
        factor = 1.0 if kind is None else 0.5
        assert selective.kept_bytes[kind, compilable] == pytest.approx(factor * size)


@pytest.mark.parametrize("damage", ["", "[]", '{"by_kind": 3}', '{"by_kind": [["x"]]}'])
def test_damaged_shares_are_the_defaults(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "shares.json"
    file.write_text(damage)
    assert compiled_share.load_shares(file, []) == DEFAULT


def test_a_training_tells_the_next_dry_run(recipe_file: Path, tmp_path: Path) -> None:
    before = stage_of(recipe_file)
    run = start_run(load_recipe(recipe_file), tmp_path)
    train_run(run)
    steps = run.events("step")
    after = stage_of(recipe_file, "stages.0.budget.steps=50")
    assert after.source.kind == "training" and after.source.run == run.run_id and after.source.steps == len(steps) - 2
    rates = [1 / step["tokens_per_second"] for step in steps[2:]]
    assert min(rates) <= after.seconds_per_step / after.tokens_per_step <= max(rates)
    # The training's process is that of all tests: its peak is theirs.
    assert after.memory.peak == pytest.approx(run.events("stage_finished")[0]["peak_memory_bytes"])
    assert after.memory.weights == before.memory.weights
    assert stage_of(recipe_file, "stages.0.batch.rows=5").source.kind == "layers"  # other batches


@pytest.mark.parametrize("change", [{"fields": {"grad_cache": True}}, {"time": 0.0}, {"seconds_per_token": "x"}])
def test_a_training_that_computed_otherwise_or_long_ago_tells_nothing(
    recipe_file: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    train_run(start_run(load_recipe(recipe_file), tmp_path))
    (file,) = (cache() / FOLDER).glob("*.steps.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    assert stage_of(recipe_file).source.kind == "layers"


def test_code_that_is_not_built_is_sampled_unless_the_sample_is_refused(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def small(data: Path, *, folder: Path | None, negatives: int) -> PyCodeSample | None:
        return sample_pycode(data, folder=folder, negatives=negatives, size=4_000)

    monkeypatch.setattr(built_sources, "sample_pycode", small)
    code = write_code(tmp_path / "code")
    data = f"stages.0.data=[{{name: code, source: pycode, path: {code}}}]"
    changes = data, "stages.0.batch.accumulate=1", "model.dtype=fp32"
    found = estimate(load_recipe(recipe_file, list(changes)))
    facts = found.sources["code"]
    assert facts[SAMPLED]["of"] == 20 and not Path(facts["path"]).exists()
    rows = facts["rows"] + 1
    with pytest.raises(InputError, match="500 rows asked for"):  # refused by what was built for this
        estimate(load_recipe(recipe_file, [*changes, "stages.0.batch.rows=500"]))
    assert Path(facts["path"]).exists()
    whole = estimate(load_recipe(recipe_file, [*changes, f"stages.0.batch.rows={rows}"]))
    assert SAMPLED not in whole.sources["code"] and whole.sources["code"]["rows"] >= rows


def steps(*seconds: float) -> list[dict[str, Any]]:
    """Events of steps of 100 tokens."""
    return [{"tokens": 100 * (n + 1), "tokens_per_second": 100 / took} for n, took in enumerate(seconds)]


def test_a_record_skips_first_steps_and_cuts_outliers() -> None:
    record = record_of(steps(50, 9, 1, 1, 1, 100), run="x", peak_bytes=5, fields={})
    assert record is not None and record.steps == 4
    assert record.seconds_per_token == pytest.approx((1 + 1 + 1 + 3) / 400)
    assert record_of(steps(50, 9, 1, 1), run="x", peak_bytes=5, fields={}) is None


def test_the_command_says_it(
    recipe_file: Path, capsys: pytest.CaptureFixture[str], compilations: list[torch.nn.Module]
) -> None:
    assert execute(["train", str(recipe_file), COMPILED, "--dry-run", "--json"]) == 0
    (stage,) = json.loads(capsys.readouterr().out)["stages"]
    assert stage["time_from"]["kind"] == "uncompiled layers" and stage["time_from"]["share"] > 0
    assert execute(["train", str(recipe_file), COMPILED, "--dry-run"]) == 0
    assert "from layers measured uncompiled, times" in capsys.readouterr().out
    assert execute(["train", str(recipe_file), "--measure-compiled"]) == 2
    assert "--measure-compiled is for --dry-run" in capsys.readouterr().err
    assert compilations == []
