"""What the terms of a loss need of the model and of the rows, checked before training."""

from collections.abc import Sequence

import numpy as np

from gemma4vec.data.rows.lazy_rows import as_lazy_rows
from gemma4vec.data.rows.rows import Row
from gemma4vec.errors import InputError
from gemma4vec.model.encoder.encoder import TextEncoder
from gemma4vec.recipe import schema
from gemma4vec.training.terms import TERMS
from gemma4vec.training.terms.base import Texts

# Terms that make no difference between two vectors of one text. The others learn from a teacher or from second views.
CONTRAST_ALONE = {"nce", "gor", "triplet", "reconstruct"}


def second_views(task: schema.Contrast) -> list[Texts]:
    """The texts that are encoded twice: `positives`, `queries`, both or neither, in this order."""
    return sorted({texts for term in task.terms for texts in TERMS[term.kind].second_views(term)})


def check_terms(task: schema.Contrast, dimension: int, where: str = "task") -> None:
    """Refuse terms that a model of `dimension` cannot have.

    Raises:
        InputError: the key and the limit.
    """
    for number, term in enumerate(task.terms):
        TERMS[term.kind].check(term, dimension, f"{where}.terms.{number}")


def check_dropout(stage: schema.Stage, encoder: TextEncoder, where: str = "") -> None:
    """Refuse two vectors of one text where the model has no dropout that makes them differ.

    Terms on two dropout views compare such vectors, and so does a contrast on a source with `pair_with_itself`, unless
    another term of the task learns from a teacher.

    Args:
        stage: the recipe's.
        encoder: the model; on the meta device too.
        where: key of the stage with a dot behind it, for messages.

    Raises:
        InputError: the term or the source, and the key that adds dropout.
    """
    task = stage.task
    if not isinstance(task, schema.Contrast) or encoder.has_dropout:
        return
    for number, term in enumerate(task.terms):
        if TERMS[term.kind].second_views(term):
            raise InputError(
                f"{where}task.terms.{number}: {term.kind} compares two dropout views of a text, and this model has no "
                "dropout; set model.lora.dropout=0.1"
            )
    itself = next((source for source in stage.data if source.own_positives), None)
    if itself is not None and {term.kind for term in task.terms} <= CONTRAST_ALONE:
        raise InputError(
            f"{where}data: source {itself.name!r} is paired with itself, and this model has no dropout: nothing but "
            "dropout makes the two vectors of a text differ; set model.lora.dropout=0.1 (SimCSE, arXiv:2104.08821)"
        )


def check_scores(task: schema.Contrast, rows: Sequence[Row], where: str = "task") -> None:
    """Refuse terms on a teacher's scores where rows that they are trained on have none.

    Raises:
        InputError: the key, and the first such row.
    """
    readers = [(number, term) for number, term in enumerate(task.terms) if TERMS[term.kind].reads_scores]
    if not readers:
        return
    lazy = as_lazy_rows(rows)
    scored_R = lazy.has_scores()
    for number, term in readers:
        needed_R = np.ones(len(rows), dtype=np.bool_)
        for source, span in lazy.source_spans():
            needed_R[span] = term.source_weights is None or term.weight_in(source) > 0
        missing = np.flatnonzero(needed_R & ~scored_R)
        if len(missing):
            raise InputError(
                f"{where}.terms.{number}: {term.kind} learns from the rows' `scores`, and {len(missing):,} of "
                f"{len(rows):,} rows have none, first row {missing[0] + 1} ({rows[int(missing[0])].query[:40]!r}); add "
                "them (gemma4vec data mine --scores), or give their source weight 0 in the term's source_weights"
            )
