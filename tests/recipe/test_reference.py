"""The reference page and the JSON Schema are what the schema says, and every key is described."""

from pathlib import Path

import pytest
import yaml

import recipe_reference as reference
from gemma4vec.machine.versions import installed_version
from gemma4vec.recipe.find import PLAN_SCHEMA, SCHEMA, shipped_recipes
from gemma4vec.recipe.plans.matrix import Matrix
from gemma4vec.recipe.plans.plan import Plan
from gemma4vec.recipe.schema import Recipe

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
TESTED = f"pydantic=={installed_version('pydantic')}" in CONSTRAINTS.read_text(encoding="utf-8").splitlines()


@pytest.mark.skipif(not TESTED, reason="each version of pydantic writes bounds its own way")
def test_page_and_schema_are_up_to_date() -> None:
    for file, text in reference.files().items():
        assert file.read_text(encoding="utf-8") == text, f"run python tools/recipe_reference.py ({file.name})"
    assert reference.main(["--check"]) == 0 and (reference.SCHEMA, reference.PLAN_SCHEMA) == (SCHEMA, PLAN_SCHEMA)


def test_every_key_and_every_part_is_described() -> None:
    for part in [one for whole in (Recipe, Matrix, Plan) for one in reference.reachable(whole)]:
        assert part.__doc__
        fields = {name: field for name, field in part.model_fields.items() if not reference.is_tag(field)}
        bare = [name for name, field in fields.items() if not field.description]
        assert not bare, f"{part.__name__}: {bare} need Field(description=...)"


def test_every_key_of_every_part_has_a_row() -> None:
    sections = reference.page().split("\n## ")
    for part in reference.reachable(Recipe):
        (section,) = [one for one in sections if f"{{ #{part.__name__.lower()} }}" in one]
        for name in part.model_fields:
            assert f"`{name}" in section, (part.__name__, name)


def test_the_json_schema_knows_every_key_that_shipped_recipes_use() -> None:
    tree = reference.schema()
    model, stage = (tree["$defs"][name]["properties"] for name in ("Model", "Stage"))
    for file in shipped_recipes().values():
        recipe = yaml.safe_load(file.read_text(encoding="utf-8"))
        assert set(recipe) <= set(tree["properties"]) and set(recipe["model"]) <= set(model)
        assert all(set(one) <= set(stage) for one in recipe["stages"])
    assert {"readout", "pooling"} <= set(model) and "optimiser" not in stage
    csv, jsonl = tree["$defs"]["CsvSource"], tree["$defs"]["JsonlSource"]
    assert csv["additionalProperties"] is False
    assert "source" in csv["required"] and "source" not in jsonl["required"]  # so that a source is of one kind
