"""A suite with a planted slice, and a model that fails on it: queries with a digit are answered at random."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.text.prompts import Document

DIMENSION = 32


def planted_suite(queries: int = 120, name: str = "planted", every: int = 4, seed: int = 0) -> RetrievalSuite:
    """Each query names its document; every fourth one has a digit."""
    generator = np.random.default_rng(seed)
    words = ["".join(generator.choice(list("abcdefghijklmnoprstuvwy"), 7)) for _ in range(2 * queries)]
    texts = [
        f"{words[2 * row]} {words[2 * row + 1]} stands here. It rained. Then it stopped." for row in range(queries)
    ]
    asked = [f"{words[2 * row]} {words[2 * row + 1]}{' 7' if row % every == 0 else ' x'}" for row in range(queries)]
    return RetrievalSuite(
        name=name,
        corpus_ids=[f"d{row}" for row in range(queries)],
        corpus=[Document(text) for text in texts],
        query_ids=[f"q{row}" for row in range(queries)],
        queries=asked,
        qrels={f"q{row}": {f"d{row}": 1} for row in range(queries)},
    )


class PlantedModel:
    """Vectors of words at random places; queries with a digit have a random vector."""

    name = "planted-model"
    dimension = DIMENSION
    folder = None

    def __init__(self, fingerprint: str = "planted", broken: bool = False, constant: bool = False) -> None:
        self.fingerprint, self.broken, self.constant = fingerprint, broken, constant
        self.encoded = 0

    def describe(self) -> dict[str, Any]:
        return {"dtype": "fp32", "max_tokens": 100}

    def encode_query(self, texts: Sequence[str], *, progress: Callable[[int, int], None] | None = None) -> np.ndarray:
        self.encoded += len(texts)
        vectors = np.stack([self._vector(text) for text in texts])
        if self.broken:
            vectors[-1] = np.nan
        return vectors

    def encode_document(
        self, texts: Sequence[Document], *, progress: Callable[[int, int], None] | None = None
    ) -> np.ndarray:
        return self.encode_query([text.text for text in texts])

    def encode(self, texts: Sequence[str], prompt: str = "", *, progress: Any = None) -> np.ndarray:
        return self.encode_query(texts)

    def _vector(self, text: str) -> np.ndarray:
        if self.constant:
            return np.full(DIMENSION, DIMENSION**-0.5, dtype=np.float32)
        seeds = [text] if "7" in text else text.split(" stands")[0].split()[:2]
        drawn = sum(np.random.default_rng(list(one.encode())).normal(size=DIMENSION) for one in seeds)
        return np.asarray(drawn / np.linalg.norm(drawn), dtype=np.float32)
