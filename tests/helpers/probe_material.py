"""A suite for probes, and models of hashed words with one fault each: cut, skewed to the front, or without prompts."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.inspection.probes.registry import Material
from gemma4vec.inspection.token_counts import TokenCounter
from gemma4vec.retrieval.tokenize import tokenize_text
from gemma4vec.text.prompts import RETRIEVAL, Document

SENTENCES = 6


def probe_suite(queries: int = 60, evidence: int = 3) -> RetrievalSuite:
    """Documents of six sentences; the query has a name, a number and two words of sentence number `evidence`."""
    generator = np.random.default_rng(0)

    def word() -> str:
        return "".join(generator.choice(list("bcdfghklmnprst"), 3)) + "".join(generator.choice(list("aeou"), 3))

    corpus, asked = [], []
    for row in range(queries):
        name, first, second = word().title(), word(), word()
        sentences = [f"The {word()} {word()} of {word()} {word()} {word()}." for _ in range(SENTENCES)]
        sentences[evidence] = f"A {first} {second} is near {name} since {1000 + row}."
        corpus.append(Document(" ".join(sentences)))
        asked.append(f"which {first} {second} is by {name} in {1000 + row}")
    return RetrievalSuite(
        name="probed",
        corpus_ids=[f"d{row}" for row in range(queries)],
        corpus=corpus,
        query_ids=[f"q{row}" for row in range(queries)],
        queries=asked,
        qrels={f"q{row}": {f"d{row}": 1} for row in range(queries)},
    )


def material(suite: RetrievalSuite | None = None, limit: int | None = None) -> Material:
    """What probes are made from, with words as tokens."""
    suite = suite or probe_suite()

    def count(documents: Sequence[Document]) -> list[int]:
        return [len(one.text.split()) for one in documents]

    counter = None if limit is None else TokenCounter(count, limit)
    return Material(suite, range(len(suite.queries)), tokenize_text, counter, 0)


class WordVectors:
    """Sums of random vectors of words. `limit` words are read, each later one weighs `decay` times the one before;
    `needs` is a text that must stand in front, or half of the vector is noise."""

    name = "words"
    folder = None
    fingerprint = "words"

    def __init__(self, limit: int = 10**6, decay: float = 1.0, needs: str = "", dimension: int = 64) -> None:
        self.limit, self.decay, self.needs, self.dimension = limit, decay, needs, dimension

    def describe(self) -> dict[str, Any]:
        return {"dtype": "fp32", "max_tokens": self.limit}

    def encode_query(self, texts: Sequence[str], *, progress: Callable[[int, int], None] | None = None) -> np.ndarray:
        return self.encode(texts)

    def encode_document(
        self, documents: Sequence[Document], *, progress: Callable[[int, int], None] | None = None
    ) -> np.ndarray:
        return self.encode([one.text for one in documents])

    def encode(self, texts: Sequence[str], prompt: str = "", *, progress: Any = None) -> np.ndarray:
        lost = bool(self.needs) and prompt not in (RETRIEVAL.query, RETRIEVAL.for_document("").prompt)
        return np.stack([self._vector(text, lost) for text in texts])

    def _vector(self, text: str, lost: bool) -> np.ndarray:
        words = [word.strip(".,").lower() for word in text.split()][: self.limit]
        made = sum(self.decay**at * _random(word, self.dimension) for at, word in enumerate(words))
        if lost:
            made = made + 2.0 * np.sqrt(len(words)) * _random(f"noise {text}", self.dimension)
        return np.asarray(made / np.linalg.norm(made), dtype=np.float32)


@lru_cache(maxsize=100_000)
def _random(word: str, dimension: int) -> np.ndarray:
    return np.asarray(np.random.default_rng(list(word.encode())).normal(size=dimension))
