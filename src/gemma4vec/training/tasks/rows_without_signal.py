"""Refuse rows from which a contrast learns nothing: all equal, or each query its own positive without dropout."""

import logging
from collections.abc import Callable, Iterator, Sequence

from gemma4vec.data.batching.mixture import as_mixture
from gemma4vec.data.rows.rows import Row
from gemma4vec.errors import InputError
from gemma4vec.recipe import schema
from gemma4vec.text.prompts import Prompts
from gemma4vec.training.terms.checks import CONTRAST_ALONE

logger = logging.getLogger(__name__)

# Rows of a source that are looked at, evenly spaced; most sources are clear after two.
_LOOKED_AT = 2_000


def check_rows_teach(
    stage: schema.Stage, rows: Sequence[Row], prompts: Callable[[str], Prompts], has_dropout: bool, where: str
) -> None:
    """Check each source of a contrastive stage.

    Args:
        stage: the recipe's.
        rows: its rows.
        prompts: source name -> its prompts.
        has_dropout: whether the model has dropout, which makes two vectors of one text differ.
        where: key of the stage, for messages.

    Raises:
        InputError: all rows of a source are equal, or share their query or positive without hard negatives, or each
            query is its own positive and nothing makes the two vectors differ.
    """
    task = stage.task
    if not isinstance(task, schema.Contrast):
        return
    contrast_alone = {term.kind for term in task.terms} <= CONTRAST_ALONE
    declared = {source.name for source in stage.data if source.own_positives}
    for part in as_mixture(rows).parts:
        if len(part.rows) < 2:
            continue
        same_query, same_positive = _same_query(part.rows), _same_positive(part.rows)
        what = f"{where}.data: every row of source {part.name!r}"
        if same_query and same_positive:
            raise InputError(f"{what} is the same, {part.rows[0].query[:40]!r}; nothing can be learned from it")
        if (same_query or same_positive) and contrast_alone and not task.hard_negatives:
            shared = "query" if same_query else "positive"
            raise InputError(
                f"{what} has the same {shared}, so that the batch has no negatives; check the columns, or mine hard "
                "negatives (gemma4vec data mine)"
            )
        if contrast_alone and (part.name in declared or _is_own_positive(part.rows)):
            _check_own_positives(what, prompts(part.name), has_dropout, part.name in declared)


def _check_own_positives(what: str, prompts: Prompts, has_dropout: bool, declared: bool) -> None:
    same_text = prompts.for_query("") == prompts.for_document("")
    if not has_dropout and same_text:
        raise InputError(
            f"{what} is its own positive, and the model has no dropout: both vectors are equal from the start; set "
            "model.lora.dropout=0.1 (SimCSE, arXiv:2104.08821), or give the rows other positives"
        )
    if not has_dropout:
        logger.warning(
            f"warning: {what} is its own positive, and the model has no dropout: the two differ by their prompts "
            "alone; set model.lora.dropout=0.1 for SimCSE"
        )
    elif not declared:
        logger.warning(f"warning: {what} is its own positive (SimCSE); check the columns if that is not intended")


def _sample(rows: Sequence[Row]) -> Iterator[Row]:
    for number in range(0, len(rows), max(1, len(rows) // _LOOKED_AT)):
        yield rows[number]


def _same_query(rows: Sequence[Row]) -> bool:
    first = rows[0].query
    return all(row.query == first for row in _sample(rows))


def _same_positive(rows: Sequence[Row]) -> bool:
    first = set(rows[0].pos)
    return all(set(row.pos) == first for row in _sample(rows))


def _is_own_positive(rows: Sequence[Row]) -> bool:
    return all(document.text == row.query and not document.title for row in _sample(rows) for document in row.pos)
