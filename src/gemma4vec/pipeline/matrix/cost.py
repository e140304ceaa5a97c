"""What a training costs in arithmetic, and which rows it saw."""

from collections.abc import Sequence
from itertools import islice

from torch import nn

from gemma4vec.data.batching.batches import batches
from gemma4vec.data.rows.rows import Row
from gemma4vec.files import sha256_text
from gemma4vec.recipe import schema


def flops_per_token(encoder: nn.Module, *, recomputed: bool = False) -> int:
    """Floating-point operations a real token costs in training, counting matrix products with parameters alone.

    A product with a matrix of P parameters is 2 P a token: once forward; once backward to pass the gradient on to what
    lies below (not for matrices below the first trainable parameter, in the order of the modules, where the backward
    pass ends); and once more for the gradient of the matrix itself where it is trained. `recomputed` (gradient
    checkpointing) adds a second forward.

    Embedding tables are looked up, not multiplied, and are not counted; nor are attention's products between tokens,
    norms and activations, which are small for texts of some hundred tokens. Kaplan et al. 2020 (arXiv:2001.08361,
    section 2.1) count the same way: 2 N forward and 4 N backward where all is trained.
    """
    tables = {id(p) for module in encoder.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    total, backward = 0, False
    for parameter in encoder.parameters():
        backward = backward or parameter.requires_grad
        if id(parameter) in tables or parameter.ndim < 2:
            continue
        forward = 2 if recomputed else 1
        total += 2 * parameter.numel() * (forward + backward + parameter.requires_grad)
    return total


def rows_hash(rows: Sequence[Row], stage: schema.Stage, seed: int) -> str:
    """12 hexadecimal digits of the queries and positives of all batches of a stage, in the order of training."""
    batch = stage.batch
    assert stage.budget.rows is not None
    count = max(1, round(stage.budget.rows / (batch.rows * batch.accumulate))) * batch.accumulate
    drawn = batches(
        rows,
        size=batch.rows,
        hard_negatives=stage.task.hard_negatives if isinstance(stage.task, schema.Contrast) else 0,
        seed=seed,
        group_rows=batch.group_rows,
    )
    texts: list[str] = []
    for one in islice(drawn, count):
        texts += one.queries
        texts += [part for document in one.positives for part in (document.title or "", document.text)]
    return sha256_text(*texts)[:12]
