"""`recipe_id`: a hash of what defines the method, so that the same method always has the same name."""

import json
from typing import Any

from gemma4vec.files import sha256_text
from gemma4vec.recipe.schema import Recipe

# These say which run it is or how it is watched, not what it does.
_NOT_METHOD = {"name", "seed", "hypothesis"}
_NOT_METHOD_IN_STAGE = {"name", "evaluation"}
_NOT_CHOOSING = {"checkpoint_seconds", "keep_at_shares", "keep_every_steps"}


def method(recipe: Recipe) -> dict[str, Any]:
    """The part of the recipe that defines the method."""
    tree = recipe.model_dump(mode="json")
    kept = {key: value for key, value in tree.items() if key not in _NOT_METHOD}
    kept["stages"] = [
        {key: value for key, value in stage.items() if key not in _NOT_METHOD_IN_STAGE} for stage in tree["stages"]
    ]
    for stage in kept["stages"]:
        for term in stage["task"].get("terms", ()):
            del term["name"]  # what the log calls it
    watched = tree["stages"][-1]["evaluation"]
    if watched["export"] == "best":  # then what is evaluated, and how often, chooses the model
        kept["stages"][-1]["evaluation"] = {key: value for key, value in watched.items() if key not in _NOT_CHOOSING}
    return kept


def recipe_id(recipe: Recipe) -> str:
    """12 hexadecimal digits; equal for recipes that define the same method."""
    return sha256_text(json.dumps(method(recipe), sort_keys=True))[:12]
