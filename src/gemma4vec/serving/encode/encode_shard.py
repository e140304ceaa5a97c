"""Encode the rows of one shard, in their order.

Shapes: N texts, D dimensions.
"""

import numpy as np

from gemma4vec.errors import InputError, WorkError
from gemma4vec.model.inference.truncated_embedder import truncate
from gemma4vec.retrieval.unit_rows import find_unit_rows
from gemma4vec.serving.encode.bulk_embedder import BulkEmbedder
from gemma4vec.serving.encode.input_files import InputFiles
from gemma4vec.serving.encode.input_rows import LONGEST_SHOWN, BadRow, GoodRow
from gemma4vec.serving.encode.plan import Plan
from gemma4vec.serving.encode.shard_files import DTYPES, ShardRows
from gemma4vec.text.sanitize import sanitize
from gemma4vec.text.text_embedder import TextProgress, Vectors


def encode_shard(
    plan: Plan, files: InputFiles, embedder: BulkEmbedder, shard: int, progress: TextProgress | None = None
) -> ShardRows:
    """Encode a shard.

    Raises:
        InputError: the input has fewer rows than the plan says.
        WorkError: a vector is not finite or not of length one; names its row.
    """
    good: list[GoodRow] = []
    bad: list[BadRow] = []
    for row in plan.read(files, shard):
        if isinstance(row, BadRow):
            bad.append(row)
        else:
            good.append(row)
    if len(good) + len(bad) != plan.rows_of(shard):
        raise InputError(
            f"{files.files[-1]} has fewer rows than the plan says; it was changed while it was read; restore it"
        )
    documents = [row.document for row in good]
    if documents:
        found = embedder.encode(documents, plan.queries, characters=plan.characters, progress=progress)
        vectors_ND, tokens_N, truncated_N = found
        if vectors_ND.shape != (len(documents), embedder.dimension):
            raise WorkError(f"{embedder.name} returned vectors of shape {list(vectors_ND.shape)} for {len(documents)}")
    else:
        vectors_ND = np.zeros((0, embedder.dimension), dtype=np.float32)
        tokens_N, truncated_N = np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.bool_)
    if plan.dimension < vectors_ND.shape[1]:
        vectors_ND = truncate(vectors_ND, plan.dimension)
    check_vectors(vectors_ND, good, embedder.name)
    stored_ND = np.ascontiguousarray(vectors_ND, dtype=DTYPES[plan.dtype])
    return ShardRows([row.id for row in good], stored_ND, tokens_N, truncated_N, bad)


def check_vectors(vectors_ND: Vectors, rows: list[GoodRow], model: str) -> None:
    """Refuse vectors that are not finite or not of length one.

    Raises:
        WorkError: their number and the first one's row.
    """
    bad = np.flatnonzero(~find_unit_rows(vectors_ND))
    if len(bad):
        first = int(bad[0])
        length = float(np.linalg.norm(vectors_ND[first]))
        key = sanitize(rows[first].id)[:LONGEST_SHOWN]
        raise WorkError(
            f"{rows[first].place} (id {key!r}): {model} returned a vector of length {length:.3g}, not 1 ({len(bad)} of "
            f"{len(rows)} rows of this shard); the model or its dtype is broken, check it with `gemma4vec doctor`"
        )
