"""The interface of everything that embeds queries and documents.

Shapes: N texts, D dimensions.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gemma4vec.text.prompts import Document

Vectors = NDArray[np.float32]
TextProgress = Callable[[int, int], None]  # texts done, texts in all


class TextEmbedder(Protocol):
    """A model that embeds texts. Search, mining, evaluation and indexing accept any class with these members.

    `model.inference.embedder.Embedder` opens every model that the package can read as one of these.
    """

    @property
    def name(self) -> str:
        """The model's name, for people and results."""

    @property
    def fingerprint(self) -> str:
        """A hash that changes with the vectors."""

    @property
    def folder(self) -> Path | None:
        """The folder that the model was opened from, if any."""

    @property
    def dimension(self) -> int:
        """D, the length of a vector."""

    def describe(self) -> dict[str, Any]:
        """Settings that explain a score, as JSON values."""

    def encode_query(self, queries: Sequence[str], /, *, progress: TextProgress | None = None) -> Vectors:
        """Unit vectors of queries, `float32[N, D]`, with the model's query prompt."""

    def encode_document(
        self, documents: Sequence[str | Document], /, *, progress: TextProgress | None = None
    ) -> Vectors:
        """Unit vectors of documents, `float32[N, D]`, with the model's document prompt and their titles."""

    def encode(self, texts: Sequence[str], prompt: str = "", /, *, progress: TextProgress | None = None) -> Vectors:
        """Unit vectors of texts with `prompt` in front of each, `float32[N, D]`."""
