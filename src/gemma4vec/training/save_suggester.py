"""The result of a suggestion run: a suggester's folder, from the last checkpoint's full-precision weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gemma4vec.model.bases.resolve import ResolvedBase
from gemma4vec.model.suggester.suggester_folder import SuggesterFacts, write_suggester
from gemma4vec.recipe.schema import Recipe
from gemma4vec.text.text_hash import words_key
from gemma4vec.training.engine.checkpoint import trained_weights
from gemma4vec.training.tasks.suggestion import SuggestionTask, suggestion_limit
from gemma4vec.training.writing.merged_base import merge_base


def save_suggester(
    folder: Path,
    recipe: Recipe,
    base: ResolvedBase,
    task: SuggestionTask,
    checkpoint: Path,
    *,
    name: str,
    made_from: Mapping[str, Any],
) -> str:
    """Write the suggester's folder; adapters are merged in fp32. Return the hash of its weights.

    Raises:
        InputError: the checkpoint is damaged or belongs to another recipe. WorkError: the disk is full.
    """
    facts = SuggesterFacts(
        name=name,
        reading=task.settings.reading,
        max_tokens=suggestion_limit(task.stage, recipe.model.max_tokens),
        trained_pairs=len(task.trained),
        queries=tuple(sorted({words_key(pair.query) for pair in task.trained})),
        documents=tuple(sorted({pair.document for pair in task.trained if pair.document is not None})),
        held_out=tuple(sorted({words_key(pair.query) for pair in task.kept_pairs})),
        made_from=dict(made_from),
        licence=base.licence,
    )
    return write_suggester(folder, facts, merge_base(recipe, base, trained_weights(checkpoint)), _card(facts, base))


def _card(facts: SuggesterFacts, base: ResolvedBase) -> str:
    return (
        f"# {facts.name}\n\nA suggester of gemma4vec: it writes other queries for a query and up to "
        f"{facts.reading.titles} titles of its first hits.\n\n    gemma4vec suggest DIR --query Q --title T\n\n"
        f"It was trained on {facts.trained_pairs:,} pairs of {len(facts.queries):,} queries, and can repeat them. "
        "`suggester.json` names these queries (by hash) and the documents that they were made for: it is judged on "
        "others.\n\n"
        f"Derived from `{base.name}`; licence of the base: {base.licence or 'not stated by the base model'}. "
        "Its terms apply to this suggester.\n"
    )
