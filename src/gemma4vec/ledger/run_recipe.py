"""The recipe that a run was started with, readable from any folder."""

from pathlib import Path

from gemma4vec.ledger.run_folder import RECIPE, RunFolder
from gemma4vec.recipe.load import parse_dump
from gemma4vec.recipe.recorded.paths import with_absolute_paths
from gemma4vec.recipe.schema import Recipe

STARTED_IN = "started_in"  # in the manifest: the folder that relative paths of the recipe are relative to


def started_in(run: RunFolder) -> Path | None:
    """Return the working folder of the process that started the run; None: a run from before it was recorded."""
    folder = run.manifest.get(STARTED_IN)
    return Path(folder) if isinstance(folder, str) else None


def read_recipe(run: RunFolder) -> Recipe:
    """Read a run's recipe; from another folder than the one it was started in, its paths are absolute.

    Raises:
        InputError: the recipe or the manifest is damaged.
    """
    recipe = parse_dump(run.recipe_text, str(run.path / RECIPE))
    folder = started_in(run)
    return recipe if folder is None or folder == Path.cwd() else with_absolute_paths(recipe, folder)
