"""A small embedder without weights, for tests of what is done with vectors."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gemma4vec.text.prompts import Document


class HashedWords:
    """Words hashed into 64 dimensions, unit length; `fingerprint` and the limit can be told apart."""

    def __init__(self, fingerprint: str = "1", max_tokens: int = 8, name: str = "hashed-words") -> None:
        self.name, self.fingerprint, self.max_tokens = name, fingerprint, max_tokens

    def describe(self) -> dict[str, Any]:
        return {"dtype": "fp32", "max_tokens": self.max_tokens}

    def encode_query(self, texts: Sequence[str], *, progress: Callable[[int, int], None] | None = None) -> np.ndarray:
        vectors_ND = np.full((len(texts), 64), 1e-3, dtype=np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                vectors_ND[row, sum(map(ord, word)) % 64] += 1.0
        if progress:
            progress(len(texts), len(texts))
        return vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)

    def encode_document(
        self, documents: Sequence[str | Document], *, progress: Callable[[int, int], None] | None = None
    ) -> np.ndarray:
        texts = [one if isinstance(one, str) else f"{one.title or ''} {one.text}" for one in documents]
        return self.encode_query(texts, progress=progress)


class Constant(HashedWords):
    """Every text has the same vector."""

    def encode_query(self, texts: Sequence[str], *, progress: Callable[[int, int], None] | None = None) -> np.ndarray:
        return np.full((len(texts), 4), 0.5, dtype=np.float32)


class Broken(HashedWords):
    """The first text has a vector that is not a number."""

    def encode_query(self, texts: Sequence[str], *, progress: Callable[[int, int], None] | None = None) -> np.ndarray:
        vectors_ND = super().encode_query(texts)
        vectors_ND[0] = np.nan
        return vectors_ND
