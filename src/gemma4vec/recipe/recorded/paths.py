"""Paths in a recipe, absolute: a run goes on from any folder, and its data are found from any folder."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gemma4vec.recipe.batch import SELF
from gemma4vec.recipe.renamed import mappings_at
from gemma4vec.recipe.schema import Recipe
from gemma4vec.recipe.terms import START

# Where a recipe has paths. Some may also be names (of hub models, data sets, runs): a path then is one that exists.
_PATHS = {
    "model": ("base", "start"),
    "model.readout": ("encoder",),
    "stages.*.data.*": ("path", "drop", "repeat", "queries"),
    "stages.*.evaluation": ("suite",),
    "stages.*.evaluation.stop": ("reference",),
    "stages.*.task": ("embedder",),
    "stages.*.batch.clusters": ("by",),
    "stages.*.task.terms.*": ("teacher", "vectors"),
}
_MAY_BE_NAMES = {"base", "start", "encoder", "reference", "teacher", "embedder", "by"}


def with_absolute_paths(recipe: Recipe, folder: Path) -> Recipe:
    """Return the recipe with its relative paths joined to `folder`, the one that they were written for.

    The `recipe_id` of the result is another one: it is for reading files, not for naming the method.
    """
    tree = recipe.model_dump(mode="json")
    for part, key, certain in _paths(tree):
        text = part[key]
        path = Path(text).expanduser()
        if not path.is_absolute() and (certain or (folder / path).exists()):
            part[key] = str(folder / path)
    return Recipe.model_validate(tree)


def missing_path(recipe: Recipe) -> str | None:
    """Return the first relative path of the recipe that names a file and does not exist here; None: there is none."""
    for part, key, certain in _paths(recipe.model_dump(mode="json")):
        path = Path(part[key]).expanduser()
        if certain and not path.is_absolute() and not path.exists():
            return str(part[key])
    return None


def _paths(tree: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str, bool]]:
    """(mapping, its key, whether the value is certainly a path) of every value that may be a path."""
    for place, keys in _PATHS.items():
        for _, part in mappings_at(tree, place.split(".")):
            for key in keys:
                if part.get(key) and (key, part[key]) not in (("teacher", START), ("by", SELF)):
                    is_data_set = key == "path" and part.get("source") == "datasets"
                    yield part, key, key not in _MAY_BE_NAMES and not is_data_set
