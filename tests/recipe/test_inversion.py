"""The keys of vector_to_text: each one belongs to the method."""

import pytest

from gemma4vec.recipe.inversion import VectorToText
from gemma4vec.recipe.load import parse_recipe
from gemma4vec.recipe.recorded.fingerprint import recipe_id

TEXT = """
name: small
model: {attention: causal}
stages:
  - data: [{name: texts, source: text, path: texts.txt}]
    task: {kind: vector_to_text, embedder: here}
    budget: {steps: 10}
"""
CHANGES = {
    "embedder": "there",
    "role": "document",
    "prefix_tokens": "4",
    "prefix_hidden": "64",
    "noise_degrees": "4",
    "mix_share": "0.1",
    "sampled_vocabulary": "null",
    "learning_rate": "0.1",
    "held_out": "0",
    "keep_texts": "0",
}


def test_every_key_counts() -> None:
    assert set(CHANGES) == set(VectorToText.model_fields) - {"kind"}
    ids = {recipe_id(parse_recipe(TEXT, "t", [f"stages.0.task.{key}={value}"])) for key, value in CHANGES.items()}
    assert len(ids | {recipe_id(parse_recipe(TEXT, "t"))}) == len(CHANGES) + 1


@pytest.mark.parametrize(("role", "texts"), [("query", "queries"), ("document", "documents")])
def test_the_role_decides_which_texts_of_rows_are_used(role: str, texts: str) -> None:
    (stage,) = parse_recipe(TEXT, "t", [f"stages.0.task.role={role}"]).stages
    assert stage.task.texts == texts  # type: ignore[union-attr]
