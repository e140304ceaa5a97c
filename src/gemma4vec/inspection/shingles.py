"""Near duplicates among a suite's documents, by shared runs of words."""

from functools import lru_cache

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.inspection.attributes import WORD, whole_text

SIZE = 4  # words
NEARLY_EQUAL = 0.8  # Jaccard similarity of two texts' shingles


class Shingles:
    """Compares documents of a suite by their places."""

    def __init__(self, suite: RetrievalSuite) -> None:
        self.suite = suite
        self.of = lru_cache(maxsize=20_000)(self._of)

    def _of(self, document: int) -> frozenset[int]:
        words = WORD.findall(whole_text(self.suite.corpus[document]).lower())
        size = min(SIZE, len(words))
        return frozenset(hash(tuple(words[at : at + size])) for at in range(len(words) - size + 1)) if words else _EMPTY

    def similarity(self, one: int, other: int) -> float:
        """Jaccard similarity of two documents' shingles; 0 where one has no word."""
        a, b = self.of(one), self.of(other)
        return len(a & b) / len(a | b) if a and b else 0.0

    def similar(self, one: int, other: int) -> bool:
        """Whether two documents are nearly equal."""
        a, b = self.of(one), self.of(other)
        if min(len(a), len(b)) < NEARLY_EQUAL * max(len(a), len(b)):
            return False
        return self.similarity(one, other) >= NEARLY_EQUAL


_EMPTY: frozenset[int] = frozenset()
