"""Near duplicates among a suite's documents, by shared runs of words."""

from collections import OrderedDict

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.inspection.attributes import WORD, whole_text

SIZE = 4  # words
NEARLY_EQUAL = 0.8  # Jaccard similarity of two texts' shingles
KEPT = 2_000_000  # shingles in memory, about 200 MB: those of the documents that were asked for last


class Shingles:
    """Compares documents of a suite by their places."""

    def __init__(self, suite: RetrievalSuite, kept: int = KEPT) -> None:
        self.suite, self.most, self.held = suite, kept, 0
        self._known: OrderedDict[int, frozenset[int]] = OrderedDict()

    def of(self, document: int) -> frozenset[int]:
        """The document's shingles as hashes; empty without a word."""
        found = self._known.pop(document, None)
        if found is None:
            found = self._of(document)
            self.held += len(found)
        self._known[document] = found
        while self.held > self.most and len(self._known) > 1:
            self.held -= len(self._known.popitem(last=False)[1])
        return found

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
