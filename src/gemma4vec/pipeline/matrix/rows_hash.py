"""A hash of the rows that a training saw."""

from collections.abc import Sequence
from itertools import islice

from gemma4vec.data.batching.batches import batches
from gemma4vec.data.rows.rows import Row
from gemma4vec.files import sha256_text
from gemma4vec.recipe import schema


def rows_hash(rows: Sequence[Row], stage: schema.Stage, seed: int) -> str:
    """12 hexadecimal digits over the queries and positives of all batches of a stage, in training order."""
    batch = stage.batch
    assert stage.budget.rows is not None
    count = max(1, round(stage.budget.rows / (batch.rows * batch.accumulate))) * batch.accumulate
    drawn = batches(
        rows,
        size=batch.rows,
        hard_negatives=stage.task.hard_negatives if isinstance(stage.task, schema.Contrast) else 0,
        seed=seed,
        group_rows=batch.group_rows if batch.clusters is None else 1,
    )
    # With clusters the rows are those of the order without, and what made them stands for their places.
    texts: list[str] = [] if batch.clusters is None else [batch.model_dump_json(include={"group_rows", "clusters"})]
    for one in islice(drawn, count):
        texts += one.queries
        texts += [part for document in one.positives for part in (document.title or "", document.text)]
    return sha256_text(*texts)[:12]
