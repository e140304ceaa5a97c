"""Flaws of rows that do not depend on any suite: duplicates, positives among negatives, cut texts."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gemma4vec.data.ngrams.hash_set import HashSet, short_hash
from gemma4vec.data.ngrams.language import UNDETERMINED, LanguageDetector
from gemma4vec.data.ngrams.word_ngrams import normalize
from gemma4vec.data.rows.rows import OVERLONG, Row
from gemma4vec.text.prompts import Document

KINDS = {
    "duplicate": "the same query and positives as an earlier row",
    "positive_is_query": "a positive that only repeats the query",
    "positive_is_negative": "a negative that is also a positive",
    "no_words": "a query or positive without words",
    "wrong_language": "a query or positive clearly in another language",
    "overlong": f"a text of more than {OVERLONG:,} characters",
    "repeated_query": "a query that an earlier row has with other positives",
    "ellipsis": "a positive that ends in an ellipsis",
    "cut": "a positive of the maximum length that ends in the middle of a sentence",
}
DROPPED = ("duplicate", "positive_is_query", "positive_is_negative", "no_words", "wrong_language")
"""Flaws for which a row, or its negative, should be left out; the others are only reported."""
EXAMPLES = 3
MIN_CUT_TEXTS, CUT_SLACK = 10, 3  # texts look cut if this many are within this many characters of the longest
SENTENCE_ENDS = tuple(".!?:;。！？…\"'”’)]}»*`")


class Flaw(NamedTuple):
    """One flaw of row `row` (from 1); `negatives` are the positions of flawed negatives, empty for the row itself."""

    row: int
    kind: str
    negatives: tuple[int, ...] = ()


@dataclass
class FlawFinder:
    """Finds flaws in the rows of one source, given one after the other; remembers hashes to recognize duplicates.

    Args:
        detect: returns a text's language; None if any language is accepted.
        languages: the accepted language codes.
    """

    detect: LanguageDetector | None = None
    languages: Sequence[str] = ()
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    rows: int = 0
    _rows_seen: HashSet = field(default_factory=HashSet)
    _queries_seen: HashSet = field(default_factory=HashSet)
    _lengths: Counter[int] = field(default_factory=Counter)
    _unended: Counter[int] = field(default_factory=Counter)

    def check(self, row: Row) -> list[Flaw]:
        """Return the flaws of the next row."""
        self.rows += 1
        found = [Flaw(self.rows, kind, negatives) for kind, negatives in self._find_flaws(row)]
        for flaw in found:
            self.counts[flaw.kind] += 1
            shown = self.examples.setdefault(flaw.kind, [])
            if len(shown) < EXAMPLES:
                shown.append(
                    {"row": self.rows, "query": row.query[:120], "positive": row.pos[0].text[:120] if row.pos else ""}
                )
        for document in row.pos:
            self._lengths[len(document.text)] += 1
            self._unended[len(document.text)] += not document.text.rstrip().endswith(SENTENCE_ENDS)
        return found

    def find_cut(self) -> dict[str, int] | None:
        """Return {"characters", "texts"} if the positives look cut at one length, else None.

        They look cut if several are as long as the longest and most of these do not end like a sentence.
        """
        longest = max(self._lengths, default=0)
        near = [length for length in self._lengths if length >= longest - CUT_SLACK]
        texts, unended = sum(self._lengths[n] for n in near), sum(self._unended[n] for n in near)
        if texts < MIN_CUT_TEXTS or 2 * unended <= texts or longest < 100:
            return None
        return {"characters": longest, "texts": texts}

    def _find_flaws(self, row: Row) -> list[tuple[str, tuple[int, ...]]]:
        query = normalize(row.query)
        positives = [_words(document) for document in row.pos]
        found: list[tuple[str, tuple[int, ...]]] = []
        if not query or not all(positives):
            found.append(("no_words", ()))
        elif query in positives:
            found.append(("positive_is_query", ()))
        found += self._find_repetition(query, positives)
        same = tuple(place for place, document in enumerate(row.neg) if _words(document) in positives)
        if same:
            found.append(("positive_is_negative", same))
        if self.detect is not None and any(
            self.detect(text) not in (*self.languages, UNDETERMINED)
            for text in (row.query, *(document.text for document in row.pos))
        ):
            found.append(("wrong_language", ()))
        if any(len(text) > OVERLONG for text in (row.query, *(one.text for one in (*row.pos, *row.neg)))):
            found.append(("overlong", ()))
        if any(one.text.rstrip().endswith(("...", "…")) for one in row.pos):
            found.append(("ellipsis", ()))
        return found

    def _find_repetition(self, query: str, positives: list[str]) -> list[tuple[str, tuple[int, ...]]]:
        if not self._rows_seen.add(short_hash(query, *sorted(positives))):
            return [("duplicate", ())]
        return [] if self._queries_seen.add(short_hash(query)) else [("repeated_query", ())]


def _words(document: Document) -> str:
    return normalize(f"{document.title} {document.text}" if document.title else document.text)
