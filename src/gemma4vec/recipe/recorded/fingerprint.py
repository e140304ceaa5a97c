"""`recipe_id`: a hash of what defines the method, so that the same method always has the same name.

Freezes, looks at final suites and families of seeds are kept by this name, so a new release must not rename a method
that it leaves as it was. Every value counts, also one that is only a default, since another default is another method.
But a key that a later release adds, with a default under which nothing changes, goes into `ADDED_LATER`: it counts only
where its value is another one.
"""

import json
from collections.abc import Mapping
from typing import Any

from gemma4vec.files import sha256_text
from gemma4vec.recipe.renamed import first_names, mappings_at
from gemma4vec.recipe.schema import FastPaths, Recipe
from gemma4vec.recipe.sources import all_keys

# These say which run it is or how it is watched, not what it does.
_NOT_METHOD = {"name", "seed", "hypothesis", "claim"}
_NOT_METHOD_IN_STAGE = {"name", "evaluation"}
_NOT_CHOOSING = {"checkpoint_seconds", "snapshot_at_shares", "snapshot_every_steps", "stop", "background"}
# What a stop rule looks at decides when training ends, as the rule itself does.
_LOOKED_AT = ("suite", "max_queries", "max_documents")

# Path of a key under its first name (`*` for any item of a list) -> the value that does what was done before the key.
ADDED_LATER: dict[str, object] = {
    "stages.*.quantize": None,
    "stages.*.budget.least_steps": None,
    "model.start": None,
    "model.layers": None,
    "stages.*.data.*.repeat": None,
    "stages.*.task.terms.*.decoupled": False,
    "stages.*.batch.clusters": None,
    "stages.*.task.terms.*.teacher_temperature": None,
    "stages.*.layout.fast_paths": first_names(FastPaths().model_dump(), "stages.*.layout.fast_paths"),
}


def method(recipe: Recipe) -> dict[str, Any]:
    """Return the part of the recipe that defines the method, under the first name of each key (`recipe.renamed`)."""
    tree = recipe.model_dump(mode="json")
    kept = {key: value for key, value in tree.items() if key not in _NOT_METHOD}
    kept["stages"] = [
        {key: value for key, value in stage.items() if key not in _NOT_METHOD_IN_STAGE} for stage in tree["stages"]
    ]
    for stage, typed in zip(kept["stages"], recipe.stages, strict=True):
        stage["data"] = [all_keys(source) for source in typed.data]
        for term in stage["task"].get("terms", ()):
            del term["name"]  # what the log calls it
    for stage, whole in zip(kept["stages"], tree["stages"], strict=True):
        watched = whole["evaluation"]
        if watched["stop"] is not None:
            stage["stop"] = watched["stop"] | {key: watched[key] for key in _LOOKED_AT}
    watched = tree["stages"][-1]["evaluation"]
    if watched["export"] == "best":  # then what is evaluated, and how often, chooses the model
        kept["stages"][-1]["evaluation"] = {key: value for key, value in watched.items() if key not in _NOT_CHOOSING}
    return first_names(kept)


def recipe_id(recipe: Recipe, added_later: Mapping[str, object] = ADDED_LATER) -> str:
    """12 hexadecimal digits; equal for recipes that define the same method, in this release and in earlier ones."""
    tree = method(recipe)
    for path, value in added_later.items():
        *above, key = path.split(".")
        for _, part in mappings_at(tree, above):
            if key in part and part[key] == value:
                del part[key]
    return sha256_text(json.dumps(tree, sort_keys=True))[:12]
