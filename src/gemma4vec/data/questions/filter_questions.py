"""Which of the questions that a model wrote for sections are kept as training queries.

A model writes questions for passages after a few examples (InPars, Bonifacio et al. 2022, arXiv:2202.05144), as
docTTTTTquery did after training (Nogueira and Lin 2019; doc2query, arXiv:1904.08375). Many are bad, and Promptagator
(Dai et al. 2022, arXiv:2209.11755) trains on those alone from which a search finds the passage again: the round trip of
Alberti et al. (2019, arXiv:1906.05416).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gemma4vec.data.documents.section import Section
from gemma4vec.data.mining.searchers import Bm25Searcher
from gemma4vec.data.ngrams.word_ngrams import normalize

WORDS = (4, 24)
ENDS = ("?", "？")
DISTINCT = 0.5  # share of a question's words that are different; loops have fewer
COPY_WORDS = 3
COPIED = 0.6  # share of a question's runs of 3 words that stand in its section; more is a sentence of it
FIRST = 5  # sections of BM25's ranking; Promptagator takes the first alone, with a trained search

HELD_OUT = "of a document that is not trained on"
FORM = f"not one question of {WORDS[0]} to {WORDS[1]} words"
EXAMPLE = "an example of the prompt"
TESTED = "a query of the test"
REPEATED = "written several times"
COPY = "words of its section"
LOST = f"its section is not among BM25's first {FIRST}"


class WrittenQuestion(NamedTuple):
    """A question, and the id of the section that it was written for."""

    section: str
    question: str


@dataclass(frozen=True)
class KeptQuestions:
    """The questions that are kept, in their order, and the number of others by the first reason that holds."""

    kept: list[WrittenQuestion]
    left_out: dict[str, int]


def filter_questions(
    written: Sequence[WrittenQuestion],
    corpus: Sequence[Section],
    *,
    examples: Iterable[str] = (),
    tested: Iterable[str] = (),
    first: int = FIRST,
) -> KeptQuestions:
    """Keep the questions that a person could have asked to find their section.

    Args:
        written: the questions.
        corpus: sections that may be trained on; a question of another one is left out. Whole sections are found: one's
            rank is that of its best part, among equal scores the best.
        examples: questions of the prompt.
        tested: queries of the test.
        first: a question is kept if BM25 ranks its section among this many.
    """
    place_of = {section.id: place for place, section in enumerate(corpus)}
    unit_of = {section.id: section.unit for section in corpus}
    known, asked = {normalize(one) for one in examples}, {normalize(one) for one in tested}
    times = Counter(normalize(one.question) for one in written)
    ranks = _Ranks(corpus) if corpus else None
    kept: list[WrittenQuestion] = []
    left_out: Counter[str] = Counter()
    for one in written:
        words = normalize(one.question)
        if one.section not in place_of or ranks is None:
            reason = HELD_OUT
        elif not is_question(one.question):
            reason = FORM
        elif words in known:
            reason = EXAMPLE
        elif words in asked:
            reason = TESTED
        elif times[words] > 1:
            reason = REPEATED
        elif copied_share(one.question, _words_of(corpus[place_of[one.section]])) >= COPIED:
            reason = COPY
        elif ranks.rank(one.question, unit_of[one.section]) > first:
            reason = LOST
        else:
            kept.append(one)
            continue
        left_out[reason] += 1
    return KeptQuestions(kept, dict(left_out))


def is_question(text: str) -> bool:
    """Whether it is one line that ends in its only question mark, neither short, long, nor a loop of words."""
    words = normalize(text).split()
    low, high = WORDS
    marks = sum(text.count(end) for end in ENDS)
    return (
        text.endswith(ENDS)
        and marks == 1
        and "\n" not in text
        and low <= len(words) <= high
        and len(set(words)) >= DISTINCT * len(words)
    )


def copied_share(question: str, text: str) -> float:
    """Share of the question's runs of three words that stand in the text, by normalized words."""
    asked, there = _runs(question), set(_runs(text))
    return sum(run in there for run in asked) / len(asked) if asked else 0.0


def _runs(text: str) -> list[tuple[str, ...]]:
    words = normalize(text).split()
    return [tuple(words[start : start + COPY_WORDS]) for start in range(len(words) - COPY_WORDS + 1)]


def _words_of(section: Section) -> str:
    return f"{section.title or ''}\n{section.text}"


class _Ranks:
    """Ranks of whole sections by BM25."""

    def __init__(self, corpus: Sequence[Section]):
        self._index = Bm25Searcher([section.as_document() for section in corpus]).index
        self._number: dict[str, int] = {}
        self._unit_M = np.array([self._number.setdefault(section.unit, len(self._number)) for section in corpus])

    def rank(self, query: str, unit: str) -> float:
        """From 1; infinite without a shared word."""
        best_U = np.zeros(len(self._number), dtype=np.float32)
        np.maximum.at(best_U, self._unit_M, self._index.scores(query))
        own = best_U[self._number[unit]]
        return 1.0 + int((best_U > own).sum()) if own > 0 else float("inf")
