"""Each kind of source has its own keys; a key of another kind is one line, and what earlier releases wrote is read."""

from collections.abc import Callable

import pytest
import yaml

from gemma4vec.errors import InputError
from gemma4vec.recipe.load import dump_recipe, parse_dump, parse_recipe, parse_source
from gemma4vec.recipe.recorded.fingerprint import recipe_id
from gemma4vec.recipe.sources import (
    FIRST_KEYS,
    KINDS,
    CsvSource,
    DebianSource,
    JsonlSource,
    PycodeSource,
    all_keys,
    source_of,
)

MINIMAL = """
name: small
stages:
  - data: [{name: pairs, path: pairs.jsonl}]
    budget: {steps: 10}
"""


def error_of(read: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        read()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_a_type_and_its_dump_has_its_own_keys_alone(kind: str) -> None:
    source = source_of(name="a", source=kind, path="p")
    assert type(source) is KINDS[kind] and set(source.model_dump()) == set(KINDS[kind].model_fields)
    own = {"queries", "pairs", "sentences"} if kind == "documents" else set()
    assert source.source == kind and set(all_keys(source)) == {"source", "name", "repeat", *FIRST_KEYS, *own}
    assert source_of(**source.model_dump()) == source_of(**all_keys(source)) == source


def test_jsonl_is_the_default_and_code_needs_no_path() -> None:
    assert isinstance(source_of(name="a", path="p"), JsonlSource)
    assert source_of(name="c", source="pycode") == PycodeSource(name="c")
    assert isinstance(parse_source("{name: d, source: debian, language: de}", "--source"), DebianSource)
    assert isinstance(parse_source("{name: d, source: csv}", "--source", ["path=x.csv"]), CsvSource)


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ("{source: csv, path: x, encodin: y}", "unknown key '{}encodin'; did you mean 'encoding'?"),
        ("{source: jsonl, path: x, encodin: y}", "unknown key '{}encodin'; known here: source, name, path, drop"),
        ("{source: jsonl, path: x, encoding: cp1252}", "{}encoding is for csv, tsv, datasets; a jsonl source has none"),
        ("{source: text, path: x, split: dev}", "{}split is for datasets, beir; a text source has none, leave it out"),
        ("{path: x, columns: {query: a, pos: b}}", "{}columns is for parquet, csv, tsv, datasets, sqlite; a jsonl"),
        ("{path: x, pair_with_itself: true}", "{}pair_with_itself is for parquet, csv, tsv, datasets, text, sqlite"),
        ("{source: csv, path: x, pair_with_itself: true}", "pair_with_itself is for plain texts; this source has rows"),
        ("{source: csv}", "a csv source needs a path"),
        ("{source: beir, path: null}", "a beir source needs a path"),
        ("{source: cvs, path: x}", "{}source: there is no 'cvs'; did you mean 'csv'?"),
        ("{source: 3, path: x}", "{}source: there is no '3'; there are jsonl, parquet"),
        ("{source: csv, path: x, columns: {query: a}}", "{}columns: query and pos are needed"),
        ("{source: sqlite, path: x, columns: {query: a, pos: b}}", "name their column as columns.text"),
        ("{source: tensors, path: x, drop: y}", "a tensors source has tokens; leave drop out"),
        ("{source: csv, path: x, max_rows: 0}", "{}max_rows: Input should be greater than"),
    ],
)
def test_a_wrong_key_is_one_line_in_a_recipe_and_alone(tree: str, expected: str) -> None:
    source = {"name": "s"} | yaml.safe_load(tree)
    inline = yaml.safe_dump([source], default_flow_style=True, width=1_000).strip()
    in_recipe = error_of(lambda: parse_recipe(MINIMAL, "my.yaml", [f"stages.0.data={inline}"]))
    alone = error_of(lambda: parse_source(yaml.safe_dump(source), "--source"))
    whole = expected if " is for " in expected else ""  # then pydantic names the source, not the key
    assert (whole or expected).replace("{}", "" if whole else "stages.0.data.0.") in in_recipe
    assert "stages.0.data.0" in in_recipe and expected.replace("{}", "") in alone and alone.startswith("--source: ")


def test_a_recipe_that_an_earlier_release_wrote_out_is_read_and_keeps_its_id() -> None:
    recipe = parse_recipe(MINIMAL, "my.yaml")
    tree = yaml.safe_load(dump_recipe(recipe))
    assert set(tree["stages"][0]["data"][0]) == set(JsonlSource.model_fields)
    tree["stages"][0]["data"][0] = all_keys(recipe.stages[0].data[0])
    older = parse_dump(yaml.safe_dump(tree), "older.yaml")
    assert older == recipe and recipe_id(older) == recipe_id(recipe)
    tree["stages"][0]["data"][0]["subset"] = "x"
    with pytest.raises(InputError, match="subset is for datasets; a jsonl source has none"):
        parse_dump(yaml.safe_dump(tree), "older.yaml")


def test_hard_negatives_of_code_may_stay_where_its_source_is_replaced() -> None:
    """`source=jsonl` on a recipe of code alone is what people type; the rows' own negatives are used."""
    change = ["stages.0.data=[{name: c, source: pycode, negatives: 8}]", "stages.0.data.0.source=jsonl"]
    (source,) = parse_recipe(MINIMAL, "my.yaml", [*change, "stages.0.data.0.path=x"]).stages[0].data
    assert isinstance(source, JsonlSource) and source.negatives == 8
