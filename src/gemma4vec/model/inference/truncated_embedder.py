"""An embedder whose vectors keep their first dimensions alone, at length one again (Matryoshka representations).

Kusupati et al. 2022, arXiv:2205.13147. Shapes: N texts, D dimensions kept.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gemma4vec.errors import InputError
from gemma4vec.files import sha256_text
from gemma4vec.text.prompts import Document
from gemma4vec.text.text_embedder import TextEmbedder, TextProgress, Vectors


def truncate(vectors_ND: Vectors, dimension: int) -> Vectors:
    """The first `dimension` columns, each row divided by its length; a row of zeros stays as it is."""
    kept_ND = vectors_ND[..., :dimension]
    lengths_N = np.linalg.norm(kept_ND, axis=-1, keepdims=True)
    return np.asarray(kept_ND / np.where(lengths_N > 0, lengths_N, 1.0), dtype=np.float32)


def check_dimension(dimension: int, width: int) -> None:
    """Refuse what is no part of a vector.

    Raises:
        InputError: `dimension` is not from 1 to `width`.
    """
    if isinstance(dimension, bool) or not isinstance(dimension, int) or not 1 <= dimension <= width:
        raise InputError(f"truncate_dim {dimension!r}: give a whole number from 1 to {width}, the model's dimension")


def check_trained_dimension(dimension: int | None, whole: int, lengths: Sequence[int], name: str) -> int:
    """The number of leading dimensions to keep of vectors of `whole`.

    Raises:
        InputError: vectors of that length were never trained.
    """
    if dimension is None or dimension == whole:
        return whole
    if dimension in lengths:
        return dimension
    trained = ", ".join(map(str, lengths)) or str(whole)
    raise InputError(
        f"--dimension {dimension}: {name} was not trained for it; it has {trained} "
        "(train with `matryoshka` lengths, docs/guides/objectives.md)"
    )


class TruncatedEmbedder:
    """Wraps an embedder, or one that remembers its vectors (which it then remembers whole)."""

    def __init__(self, model: TextEmbedder, dimension: int):
        check_dimension(dimension, model.dimension)
        self.model, self.dimension = model, dimension
        self.name = model.name
        self.fingerprint = sha256_text(model.fingerprint, "truncate", str(dimension))[:16]

    @property
    def folder(self) -> Path | None:
        """The folder that the model was opened from, if any."""
        return self.model.folder

    @property
    def weights(self) -> str | None:
        """Hash of the model's weights, if known."""
        weights: str | None = getattr(self.model, "weights", None)
        return weights

    def describe(self) -> dict[str, Any]:
        """What explains a score, with the dimension that the whole vectors have."""
        return {**self.model.describe(), "dimension": self.dimension, "truncated_from": self.model.dimension}

    def encode_query(self, queries: Sequence[str], *, progress: TextProgress | None = None) -> Vectors:
        """`[N, D]` vectors of queries."""
        return truncate(self.model.encode_query(queries, progress=progress), self.dimension)

    def encode_document(self, documents: Sequence[str | Document], *, progress: TextProgress | None = None) -> Vectors:
        """`[N, D]` vectors of documents."""
        return truncate(self.model.encode_document(documents, progress=progress), self.dimension)

    def encode(self, texts: Sequence[str], prompt: str = "", *, progress: TextProgress | None = None) -> Vectors:
        """`[N, D]` vectors of texts with `prompt` put before each."""
        return truncate(self.model.encode(texts, prompt, progress=progress), self.dimension)
