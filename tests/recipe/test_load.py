"""A recipe is read as it was meant, or one line says what is wrong where, and what to do."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemma4vec.errors import InputError
from gemma4vec.recipe.load import dump_recipe, load_recipe, parse_recipe

MINIMAL = """
name: small
stages:
  - data: [{name: pairs, path: pairs.jsonl}]
    budget: {steps: 10}
"""


def error_of(text: str, *overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        parse_recipe(text, "my.yaml", overrides)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    return message


def test_a_minimal_recipe_gets_defaults() -> None:
    recipe = parse_recipe(MINIMAL, "my.yaml")
    assert recipe.model.attention == "bidirectional" and recipe.stages[0].task.temperature == 0.05
    assert recipe.stages[0].layout.compile == "auto" and recipe.seed == 0


def test_overrides_reach_every_depth_and_are_yaml_values(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(MINIMAL)
    changes = [
        "seed=7",
        "stages.0.batch.rows=64",
        "stages.0.data.0.path=a b=c.jsonl",
        "model.lora.modules=[q_proj, v_proj]",
        "model.lora.dropout=1e-1",
        "stages.0.optimizer.learning_rate=4e-4",
        "stages.0.optimizer.clip=null",
        "stages.0.layout.compile=on",
        "model.prompts={query: 'q: ', document: ''}",
        "hypothesis=Lifts nDCG@10 above BM25, by 3 points",
    ]
    recipe = load_recipe(tmp_path / "r.yaml", changes)
    stage = recipe.stages[0]
    assert (recipe.seed, stage.batch.rows, stage.data[0].path) == (7, 64, "a b=c.jsonl")
    assert recipe.model.lora is not None
    assert (recipe.model.lora.modules, recipe.model.lora.dropout) == (("q_proj", "v_proj"), 0.1)
    assert stage.optimizer.learning_rate == 4e-4 and stage.optimizer.clip is None
    assert stage.layout.compile is True
    assert recipe.model.prompts == {"query": "q: ", "document": ""}
    assert recipe.hypothesis.endswith("by 3 points")


def test_a_later_override_wins_and_a_whole_part_can_be_null() -> None:
    recipe = parse_recipe(MINIMAL, "my.yaml", ["seed=1", "seed=2", "model.lora=null"])
    assert recipe.seed == 2 and recipe.model.lora is None


def test_a_readout_may_be_a_bare_name_and_older_recipes_stay_readable() -> None:
    assert parse_recipe(MINIMAL, "my.yaml", ["model.readout=latent_attention"]).model.readout.name == "latent_attention"
    older = ["model.projection=5", "model.readout={name: last_token, pool_prompt: true}"]
    model = parse_recipe(MINIMAL, "my.yaml", older).model
    assert model.head is not None and model.head.widths == (5,) and model.readout.name == "last_token"
    assert parse_recipe(MINIMAL, "my.yaml", ["model.projection=null"]).model.head is None


@pytest.mark.parametrize(("value", "meaning"), [("on", True), ("off", False), ("true", True), ("auto", "auto")])
def test_compile_takes_yaml_booleans_and_auto(value: str, meaning: bool | str) -> None:
    text = MINIMAL + f"    layout: {{compile: {value}}}\n"
    assert parse_recipe(text, "my.yaml").stages[0].layout.compile is meaning or meaning == "auto"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("stages.0.batch.row=3", "unknown key 'stages.0.batch.row'; did you mean 'rows'?"),
        ("model.readot.name=mean", "unknown key 'model.readot'; did you mean 'readout'?"),
        ("model.readout.pool=false", "unknown key 'model.readout.pool'; did you mean 'pool_prompt'?"),
        ("model.readout={name: layer_mix, norm: 1}", "key 'model.readout.norm'; did you mean 'normalize'?"),
        ("model.readout={name: last_token, pool_prompt: false}", "key 'model.readout.pool_prompt'; known here: name"),
        ("model.head={width: [3]}", "unknown key 'model.head.width'; did you mean 'widths'?"),
        ("model.lora.r=3", "unknown key 'model.lora.r'; known here: rank, alpha, dropout, modules, last_layers"),
        ("stages.0.data.0.file=x", "unknown key 'stages.0.data.0.file'"),
        ("stages.0.optimiezr.clip=1", "unknown key 'stages.0.optimiezr'; did you mean 'optimizer'?"),
        ("k" * 5000 + "=3", f"unknown key '{'k' * 100}...'"),
        ("sede=3", "unknown key 'sede'; did you mean 'seed'?"),
    ],
)
def test_an_unknown_key_is_named_with_a_suggestion(override: str, expected: str) -> None:
    message = error_of(MINIMAL, override)
    assert message.startswith("my.yaml: ") and expected in message


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("stages.0.budget={}", "stages.0.budget: give exactly one of steps, rows, tokens, minutes (found none)"),
        ("stages.0.budget.minutes=3", "found steps and minutes"),
        ("stages.0.budget.steps=0", "stages.0.budget.steps: "),
        ("stages.0.task.temperature=0", "stages.0.task.temperature: "),
        ("stages.0.task.temperature=.inf", "stages.0.task.temperature: "),
        ("stages.0.optimizer.learning_rate=.nan", "stages.0.optimizer.learning_rate: "),
        ("stages.0.batch.rows=1", "stages.0.batch.rows: "),
        ("stages.0.layout={kind: padded, share_prefixes: true}", "share_prefixes: padded rows hold one text each"),
        ("stages.0.data.0.split=test", "split is for datasets, beir; a jsonl source has none"),
        ("model.readout.name=max", "model.readout.name: there is no 'max'; did you mean 'mean'?"),
        ("model.readout.name=3", "there is no '3'; there are last_token, first_token, mean"),
        ("model.readout={name: latent_attention, latents: 16}", "model.readout.latents: Input should be greater than"),
        ("model.readout={name: latent_attention, latents: 513}", "model.readout.latents: Input should be less than"),
        ("model.head={widths: [3, 0]}", "model.head.widths.1: "),
        ("model.head={widths: []}", "model.head.widths: "),
        ("stages.0.data.0.path=null", "stages.0.data.0: a jsonl source needs a path"),
        ("stages.0.data=[]", "stages.0.data: "),
        ("stages=[]", "stages: "),
        ("name=a/b", "name: "),
        ("seed=x", "seed: "),
        ("seed=36893488147419103232", "seed: "),
        ("stages.0.optimizer.betas=[0.9, 2.999]", "betas.1: "),
        ("stages.0.layout.row_tokens=9223372036854775807", "row_tokens: "),
        ("stages.0.layout.tokens_per_forward=2147483648", "tokens_per_forward: "),
        ("stages.0.batch.group_rows=36893488147419103232", "group_rows: "),
        ("seed", "override 'seed': write key.path=value"),
        ("=3", "override '=3': write key.path=value"),
        ("seed=[", "override 'seed=[': the value is not YAML"),
        ("stages.1.batch.rows=3", "'1' is not a valid index; use 0 to 0"),
        ("stages.x.batch.rows=3", "'x' is not a valid index"),
        ("stages.².batch.rows=3", "'²' is not a valid index; use 0 to 0"),
        ("stages.٠.batch.rows=3", "'٠' is not a valid index; use 0 to 0"),
        (f"stages.{'9' * 5000}.batch.rows=3", "is not a valid index; use 0 to 0"),
        ("stages.-1.batch.rows=3", "'-1' is not a valid index"),
        ("stages..batch.rows=3", "'' is not a valid index"),
        ("name.first=x", "name is a value, not a mapping"),
        ("name.first.second=x", "'second'|'first' is below a value"),
    ],
)
def test_a_wrong_value_is_one_line_with_its_place(override: str, expected: str) -> None:
    message = error_of(MINIMAL, override)
    assert any(part in message for part in expected.split("|")), message


def test_several_problems_are_counted() -> None:
    assert "(and 1 more problem)" in error_of(MINIMAL, "seed=x", "stages.0.batch.rows=1")
    assert "(and 2 more problems)" in error_of(MINIMAL, "seed=x", "stages.0.batch.rows=1", "model.max_tokens=x")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "a recipe is a mapping of keys to values, found NoneType"),
        ("- a\n- b", "found list"),
        ("a: [1", "is not YAML"),
        ("name: \x00", "is not YAML"),
        ("1: 2\n", "my.yaml: "),
        ("name: x\n", "stages: Field required"),
    ],
)
def test_what_is_no_recipe_is_refused(text: str, expected: str) -> None:
    assert expected in error_of(text)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read the recipe .*missing\.yaml: No such file"):
        load_recipe(tmp_path / "missing.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"name: \xff\n")
    with pytest.raises(InputError, match=r"cannot read the recipe .*latin\.yaml"):
        load_recipe(tmp_path / "latin.yaml")


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "seed": st.integers(0, 2**40),
            "hypothesis": st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30),
            "temperature": st.floats(1e-3, 10),
            "compile": st.sampled_from(["auto", True, False]),
            "budget": st.sampled_from([{"steps": 3}, {"rows": 100}, {"tokens": 10**9}, {"minutes": 0.1}]),
            "modules": st.sampled_from(["all-linear", ("q_proj", "v_proj")]),
        }
    )
)
def test_a_dumped_recipe_is_read_back_the_same(values: dict) -> None:
    recipe = parse_recipe(MINIMAL, "my.yaml")
    tree = recipe.model_dump(mode="python")
    tree["seed"], tree["hypothesis"] = values["seed"], values["hypothesis"]
    tree["model"]["lora"]["modules"] = values["modules"]
    tree["stages"][0]["task"]["temperature"] = values["temperature"]
    tree["stages"][0]["layout"]["compile"] = values["compile"]
    tree["stages"][0]["budget"] = values["budget"]
    changed = type(recipe).model_validate(tree)
    assert parse_recipe(dump_recipe(changed), "dumped") == changed
