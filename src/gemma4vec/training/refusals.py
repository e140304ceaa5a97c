"""What cannot be trained is refused before any weight is loaded, in a real run and in a dry one alike."""

from collections.abc import Sequence
from pathlib import Path

from gemma4vec.data.batches import check_rows
from gemma4vec.data.sources import Loaded
from gemma4vec.model.checks import check_recipe, read_config
from gemma4vec.recipe.schema import Recipe


def refuse_early(recipe: Recipe, base: Path, loaded: Sequence[Loaded]) -> None:
    """Check what can be known without weights: the readout against the base, rows against batches, stage by stage.

    Raises:
        InputError: one line that names the recipe's key.
    """
    check_recipe(recipe.model, read_config(base))
    for stage, data in zip(recipe.stages, loaded, strict=True):
        check_rows(data.rows, size=stage.batch.rows, hard_negatives=stage.task.hard_negatives)
