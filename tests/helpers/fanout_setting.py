"""A small suite for fan-out: words in place of vectors, with a log of their pairs."""

import numpy as np
from hashed_words import HashedWords

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.fanout.keep import Gates
from gemma4vec.fanout.setting import Choices, Setting
from gemma4vec.fanout.writers import LogWriter
from gemma4vec.text.prompts import Document

WORDS = [
    f"{first}{second}" for first in ("ka", "lo", "mi", "nu", "re", "ti") for second in ("bra", "dex", "fon", "gul")
]


_DRAWN = np.random.default_rng(7)
VARIED = [" ".join(_DRAWN.choice(WORDS, _DRAWN.integers(2, 9))) for _ in range(150)]
"""Texts whose vectors differ, so that none is as near as another."""


def make(queries: int = 24, log: list[str] | None = None, **choices: object) -> Setting:
    """Queries name a word, documents two; half of the queries name a word of another document."""
    documents = [Document(f"{word} {WORDS[row - 1]} text", word) for row, word in enumerate(WORDS)]
    asked = [f"find {WORDS[row]}" if row % 2 else f"find {WORDS[row - 5]} thing" for row in range(queries)]
    ids = [f"d{row}" for row in range(len(WORDS))]
    qrels = {f"q{row}": {f"d{row}": 2, f"d{(row + 1) % len(WORDS)}": 1} for row in range(queries)}
    suite = RetrievalSuite("walks", ids, documents, [f"q{row}" for row in range(queries)], asked, qrels)
    embedder = HashedWords()
    texts = log if log is not None else [f"{one} {other}" for one in WORDS for other in WORDS[::5]]
    writer = LogWriter(texts, embedder.encode_query(texts))
    chosen = Choices(**{"n": 4, "gates": Gates(faithful=0.2)} | choices)  # type: ignore[arg-type]
    return Setting(
        suite, embedder, embedder.encode_query(asked), embedder.encode_document(documents), writer, writer, chosen
    )
