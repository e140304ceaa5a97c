"""The result of a run that trains no embedding model: a decoder or a suggester."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gemma4vec.model.bases.resolve import ResolvedBase
from gemma4vec.recipe.schema import Recipe
from gemma4vec.training.engine.task import Task
from gemma4vec.training.save_decoder import save_decoder
from gemma4vec.training.save_suggester import save_suggester
from gemma4vec.training.tasks.suggestion import SuggestionTask
from gemma4vec.training.tasks.vector_to_text import VectorToTextTask

Writer = VectorToTextTask | SuggestionTask


def writer_of(task: Task) -> Writer | None:
    """The task itself if its result writes texts; None: its result is an embedding model."""
    return task if isinstance(task, Writer) else None


def save_writer(
    folder: Path,
    recipe: Recipe,
    base: ResolvedBase,
    task: Writer,
    checkpoint: Path,
    *,
    name: str,
    made_from: Mapping[str, Any],
) -> str:
    """Write the folder of what a task trained; return the hash of its weights.

    Raises:
        InputError: the checkpoint is damaged or belongs to another recipe. WorkError: the disk is full.
    """
    if isinstance(task, SuggestionTask):
        return save_suggester(folder, recipe, base, task, checkpoint, name=name, made_from=made_from)
    return save_decoder(folder, recipe, base, task, checkpoint, name=name, made_from=made_from)
