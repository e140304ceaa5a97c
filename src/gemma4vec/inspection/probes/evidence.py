"""Texts of probes: the sentence that answers a query, and the right document without it or with it elsewhere."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from gemma4vec.inspection.attributes import split_sentences
from gemma4vec.retrieval.tokenize import WordTokenizer
from gemma4vec.text.prompts import Document

PLACES = {"first": 0.0, "middle": 0.5, "last": 1.0}


@dataclass(frozen=True)
class Evidence:
    """A right document, split at the sentence that shares most words with the query.

    Attributes:
        sentence: that sentence.
        others: the others in their order.
        place: its number among all.
        before: the document's text before it.
    """

    document: Document
    sentence: str
    others: list[str]
    place: int
    before: str

    @property
    def sentences(self) -> int:
        """Sentences of the document."""
        return len(self.others) + 1

    def with_evidence(self, share: float, generator: np.random.Generator) -> Document:
        """The evidence at this share of the way (0 first, 1 last) among the others in a random order."""
        others = [self.others[at] for at in generator.permutation(len(self.others))]
        at = round(share * len(others))
        return Document(" ".join([*others[:at], self.sentence, *others[at:]]), self.document.title)

    def without(self, generator: np.random.Generator) -> Document:
        """The others alone, in a random order."""
        others = [self.others[at] for at in generator.permutation(len(self.others))]
        return Document(" ".join(others), self.document.title)


def find_evidence(query: str, right: Sequence[Document], tokenize: WordTokenizer) -> Evidence | None:
    """The evidence in the right document where most words are shared; None where none is."""
    wanted, best, most = set(tokenize(query)), None, 0
    for document in right:
        parts = split_sentences(document.text)
        for place, (start, sentence) in enumerate(parts):
            shared = len(wanted & set(tokenize(sentence)))
            if shared > most:
                others = [text for number, (_, text) in enumerate(parts) if number != place]
                best, most = Evidence(document, sentence, others, place, document.text[:start]), shared
    return best


def map_words(text: str, change: Callable[[str], str]) -> str:
    """The text with each word (letters and digits) replaced by what `change` makes of it."""
    out, word = [], ""
    for character in f"{text}\0":
        if character.isalnum() or character == "_":
            word += character
            continue
        out.append(change(word) if word else "")
        out.append(character)
        word = ""
    return "".join(out)[:-1]
