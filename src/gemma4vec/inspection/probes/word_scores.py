"""BM25 of any text, by a corpus's frequencies: the control of every probe.

The variant and the parameters of `retrieval.bm25`. A text that is no document of the corpus, such as one with a
sentence moved, is scored as if it were one.
"""

import math
from collections import Counter
from collections.abc import Sequence

from gemma4vec.inspection.attributes import document_frequency, whole_text
from gemma4vec.retrieval.bm25 import default_parameters
from gemma4vec.retrieval.tokenize import WordTokenizer
from gemma4vec.text.prompts import Document


class WordScores:
    """BM25 scores of pairs of texts."""

    def __init__(self, corpus: Sequence[Document], tokenize: WordTokenizer) -> None:
        texts = [whole_text(one) for one in corpus]
        self.tokenize = tokenize
        self.frequency = document_frequency(texts, tokenize)
        self.documents = len(texts)
        self.length = sum(len(tokenize(text)) for text in texts) / max(len(texts), 1) or 1.0
        self.k1, self.b = default_parameters(tokenize)

    def score(self, query: str, document: Document) -> float:
        """The score of one pair; 0 where no word is shared."""
        tokens = Counter(self.tokenize(whole_text(document)))
        norm = self.k1 * (1.0 - self.b + self.b * sum(tokens.values()) / self.length)
        return sum(self._weight(token) * tokens[token] / (tokens[token] + norm) for token in self.tokenize(query))

    def _weight(self, token: str) -> float:
        found = self.frequency.get(token, 0)
        return math.log(1.0 + (self.documents - found + 0.5) / (found + 0.5))
