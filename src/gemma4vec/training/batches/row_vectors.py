"""Vectors of rows for their clusters, on disk: half precision is enough for who is near whom.

Shapes: n rows, D dimensions.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gemma4vec.data.rows.rows import Row
from gemma4vec.errors import InputError
from gemma4vec.files import disk_errors
from gemma4vec.machine.terminal import ProgressBar
from gemma4vec.text.pretokenized import PretokenizedText
from gemma4vec.text.text_embedder import TextEmbedder

# Rows whose texts are in memory at once.
BLOCK = 2048

Text = Literal["query", "positive", "both"]


def write_row_vectors(
    model: TextEmbedder, rows: Sequence[Row], numbers: NDArray[np.int64], text: Text, file: Path, key: str
) -> NDArray[np.float16]:
    """Unit vectors `[n, D]` of the rows `numbers`, mapped from `file`, which is written.

    Args:
        model: encodes queries and positives in its own prompts.
        rows: all rows.
        numbers: of the rows that are encoded.
        text: what a row's vector is of (`recipe.batch.Clusters.text`).
        file: a later call writes over it.
        key: the recipe's key, for messages.

    Raises:
        InputError: rows are tokens, or a vector is not finite.
        DiskError: the disk is full.
    """
    if not len(numbers):
        return np.empty((0, model.dimension), dtype=np.float16)
    with disk_errors(file), ProgressBar("clustering", "rows") as bar:
        file.parent.mkdir(parents=True, exist_ok=True)
        vectors_nD = np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=(len(numbers), model.dimension))
        for start in range(0, len(numbers), BLOCK):
            block = [rows[number] for number in numbers[start : start + BLOCK].tolist()]
            found_BD = row_vectors(model, block, text, key)
            bad = np.flatnonzero(~np.isfinite(found_BD).all(axis=1))
            if len(bad):
                raise InputError(
                    f"{key}: {model.name} makes vectors that are not finite, first of {block[bad[0]].query[:40]!r}; "
                    "use another model"
                )
            vectors_nD[start : start + BLOCK] = found_BD
            bar(min(start + BLOCK, len(numbers)), len(numbers))
        vectors_nD.flush()
    return vectors_nD


def row_vectors(model: TextEmbedder, rows: Sequence[Row], text: Text, key: str) -> NDArray[np.float32]:
    """Unit vectors `[n, D]` of some rows: of the query, the first positive, or their mean.

    Raises:
        InputError: rows are tokens.
    """
    if any(isinstance(row.query, PretokenizedText) for row in rows):
        raise InputError(f"{key}: the data has token ids, and rows are clustered by their texts; leave clusters out")
    parts = []
    if text != "positive":
        parts.append(model.encode_query([row.query for row in rows]))
    if text != "query":
        parts.append(model.encode_document([row.pos[0] for row in rows]))
    mean_nD = np.asarray(sum(_unit(part) for part in parts), dtype=np.float32)
    return _unit(mean_nD)


def _unit(vectors_nD: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors of length 1; zeros stay, and so does what is not finite."""
    lengths_n1 = np.linalg.norm(vectors_nD, axis=1, keepdims=True)
    return np.asarray(vectors_nD / np.where(lengths_n1 == 0, 1.0, lengths_n1), dtype=np.float32)
