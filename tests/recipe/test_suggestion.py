"""The keys of suggestion: each one belongs to the method."""

from gemma4vec.recipe.inversion import Reading, Suggestion
from gemma4vec.recipe.load import parse_recipe
from gemma4vec.recipe.recorded.fingerprint import recipe_id

TEXT = """
name: small
model: {attention: causal}
stages:
  - data: [{name: walks, path: pairs.jsonl}]
    task: {kind: suggestion}
    budget: {steps: 10}
"""
CHANGES = {
    "reading.query_tokens": "8",
    "reading.titles": "0",
    "reading.title_tokens": "4",
    "plain_share": "0",
    "sampled_vocabulary": "null",
    "held_out": "0",
}


def test_every_key_counts() -> None:
    keys = {f"reading.{key}" for key in Reading.model_fields} | set(Suggestion.model_fields) - {"kind", "reading"}
    assert set(CHANGES) == keys
    ids = {recipe_id(parse_recipe(TEXT, "t", [f"stages.0.task.{key}={value}"])) for key, value in CHANGES.items()}
    assert len(ids | {recipe_id(parse_recipe(TEXT, "t"))}) == len(CHANGES) + 1
