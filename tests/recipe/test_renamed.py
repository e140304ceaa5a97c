"""Old names of keys are read wherever a recipe is, with one line in the log; no id depends on which name is used."""

import logging
import uuid
from pathlib import Path

import pytest
import yaml

from gemma4vec.errors import InputError
from gemma4vec.model.save.read_model import model_of
from gemma4vec.recipe.load import dump_recipe, parse_dump, parse_recipe
from gemma4vec.recipe.plans.matrix import load_matrix
from gemma4vec.recipe.recorded.fingerprint import recipe_id
from gemma4vec.recipe.renamed import RENAMED, current_names, current_path, first_names

OLD = """
name: old
model: {readout: {name: layer_mix, normalise: false}}
stages:
  - data: [{name: texts, source: text, path: texts.txt}]
    task: {kind: masked_next_token, kept_share: 0.2}
    layout:
      fast_paths: &fast {half_turn: false, joined_adapters: true, last_tokens_only: false, grouped_attention: true}
    budget: {steps: 10}
  - data: [{name: pairs, path: pairs.jsonl}]
    optimiser: {learning_rate: 0.5}
    batch: {distinct: true, tokenise: once}
    layout:
      share_beginnings: false
      fast_paths: *fast
    evaluation: {beside: true, keep_at_shares: [0.5], keep_every_steps: 3}
    budget: {steps: 10}
"""
# What commit da599b7 called OLD.
OLD_ID = "96774cf2ae5b"


def somewhere() -> str:
    """A name of a file that no other test uses: a line is logged once a file and process."""
    return f"{uuid.uuid4()}.yaml"


def test_every_old_name_is_read_and_logged_in_one_line_with_the_new_one(caplog: pytest.LogCaptureFixture) -> None:
    where = somewhere()
    with caplog.at_level(logging.WARNING):
        recipe = parse_recipe(OLD, where)
        parse_recipe(OLD, where)
    stage = recipe.stages[1]
    assert recipe.model.readout.model_dump()["normalize"] is False
    assert recipe.stages[0].task.model_dump()["unchanged_share"] == 0.2
    assert (stage.optimizer.learning_rate, stage.batch.no_duplicates, stage.batch.tokenize) == (0.5, True, "once")
    assert stage.layout.share_prefixes is False
    fast = stage.layout.fast_paths
    assert (fast.fused_rotary, fast.fused_lora) == (False, True)
    assert (fast.last_token_layer, fast.matmul_attention) == (False, True)
    watched = stage.evaluation
    assert (watched.background, watched.snapshot_at_shares, watched.snapshot_every_steps) == (True, (0.5,), 3)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == len(RENAMED)  # OLD has every one
    for path, new in RENAMED.items():
        (line,) = [line for line in lines if f"({path})" in line]
        assert line.startswith(f"{where}: ") and repr(new) in line and "\n" not in line


def test_old_and_new_names_have_the_id_that_the_old_code_gave() -> None:
    new = dump_recipe(parse_recipe(OLD, somewhere()))
    assert not any(path.rpartition(".")[2] in new.replace("optimizer", "") for path in RENAMED)
    assert recipe_id(parse_recipe(OLD, somewhere())) == recipe_id(parse_recipe(new, "new.yaml")) == OLD_ID


def test_a_dump_of_an_earlier_release_is_read_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    assert recipe_id(parse_dump(OLD, somewhere())) == OLD_ID
    assert not caplog.records


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("stages.1.optimiser.learning_rate=2", "stages.1.optimizer.learning_rate=2"),
        ("stages.1.optimiser={clip: 3}", "stages.1.optimizer={clip: 3}"),
        ("stages.1.batch={distinct: false, rows: 4}", "stages.1.batch={no_duplicates: false, rows: 4}"),
        ("model.readout.normalise=true", "model.readout.normalize=true"),
        ("stages.0.task.kept_share=0.3", "stages.0.task.unchanged_share=0.3"),
    ],
)
def test_an_override_may_have_either_name_whatever_the_file_has(old: str, new: str) -> None:
    new_text = dump_recipe(parse_recipe(OLD, somewhere()))
    made = [parse_recipe(text, somewhere(), [change]) for text in (OLD, new_text) for change in (old, new)]
    assert all(one == made[0] for one in made) and made[0] != parse_recipe(OLD, somewhere())


def test_both_names_at_once_are_one_line() -> None:
    text = OLD.replace("    optimiser:", "    optimizer: {clip: 1}\n    optimiser:")
    with pytest.raises(InputError) as caught:
        parse_recipe(text, "my.yaml")
    expected = "my.yaml: stages.1.optimiser and stages.1.optimizer are the same key; give one"
    assert str(caught.value) == expected
    with pytest.raises(InputError, match=r"model\.pooling and model\.readout are the same key"):
        parse_recipe(OLD.replace("model: {", "model: {pooling: mean, "), "my.yaml")


def test_pooling_is_another_name_of_readout(caplog: pytest.LogCaptureFixture) -> None:
    text = OLD.replace("{readout: {name: layer_mix, normalise: false}}", "{pooling: {name: mean, pool_prompt: false}}")
    other = text.replace("pooling:", "readout:")
    assert parse_recipe(text, somewhere()).model == parse_recipe(other, somewhere()).model
    for change in ("model.pooling=last_token", "model.pooling.name=last_token"):
        model = parse_recipe("\n".join(OLD.splitlines()[:2] + OLD.splitlines()[3:]), somewhere(), [change]).model
        assert model.readout.name == "last_token"
    assert "pooling" not in caplog.text


def test_a_matrix_plan_with_old_names_is_the_plan_with_new_ones(tmp_path: Path) -> None:
    plan = {
        "name": "m",
        "recipes": [{"recipe": "a.yaml", "overrides": ["stages.*.optimiser.clip=2"]}],
        "axes": {"share": {"values": {"no": ["stages.*.layout.share_beginnings=false"]}}},
        "overrides": ["stages.*.batch.distinct=true"],
        "budget": {"rows": 10},
        "dev": [{"suite": "d"}],
        "final": [{"suite": "f"}],
        "control": "a",
    }
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    matrix = load_matrix(tmp_path / "plan.yaml")
    assert matrix.recipes[0].overrides == ("stages.*.optimizer.clip=2",)
    assert matrix.axes["share"].values["no"] == ("stages.*.layout.share_prefixes=false",)
    assert matrix.overrides == ("stages.*.batch.no_duplicates=true",)


def test_the_settings_of_a_saved_model_may_have_old_names() -> None:
    settings = {"format": 2, "model": {"readout": {"name": "layer_mix", "normalise": False}}}
    assert model_of(settings).readout.model_dump()["normalize"] is False
    assert settings["model"]["readout"] == {"name": "layer_mix", "normalise": False}  # untouched


def test_paths_and_trees_that_have_no_old_name_stay_as_they_are() -> None:
    old = "stages.1.layout.fast_paths.half_turn"
    assert current_path(old) == current_path(current_path(old)) == "stages.1.layout.fast_paths.fused_rotary"
    for path in ("seed", "stages.0.task.optimiser", "optimiser.clip", "stages", "model.readout"):
        assert current_path(path) == path
    for tree in ({}, {"stages": None}, {"stages": [3, None]}, {"stages": {"0": {"optimiser": 1}}}, {"model": "x"}):
        assert current_names(tree, "x") == first_names(tree) == tree


def test_first_names_undo_current_names() -> None:
    tree = yaml.safe_load(OLD)
    assert first_names(current_names(tree, somewhere())) == tree
    assert first_names({"normalize": 1, "scale": 2}, "model.readout") == {"normalise": 1, "scale": 2}
    assert first_names({"normalize": 1}, "stages") == {"normalize": 1}
