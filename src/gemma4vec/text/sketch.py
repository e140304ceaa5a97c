"""Hashes of texts, and the smallest of them, by which two sets of texts are compared.

Bottom-k sketches: Broder, "On the resemblance and containment of documents", 1997. Two sketches estimate which share of
each set is in the other.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from gemma4vec.text.prompts import Document
from gemma4vec.text.text_hash import text_key, visible_text

DIGITS = 12  # hexadecimal digits of a hash
DOCUMENT_START = 240  # characters of a document that count
LOOKED_AT = 4096  # characters among which these are sought first, where some are not seen
_WORD = re.compile(r"\w+")


class TextHash(NamedTuple):
    """A text's hash, and that of what is seen of it."""

    whole: int
    visible: int


def words_hash(text: str) -> int:
    """A text's hash, without case, punctuation and white space."""
    return text_key(" ".join(_WORD.findall(text.lower()))) & ((1 << 4 * DIGITS) - 1)


def query_hash(text: str) -> TextHash:
    """The hashes of a query."""
    whole = words_hash(text)
    return TextHash(whole, whole if text.isascii() else words_hash(visible_text(text)))


def document_hash(document: Document) -> TextHash:
    """The hashes of a document's title and beginning."""
    title, start = document.title or "", document.text[:DOCUMENT_START]
    whole = words_hash(f"{title}\n{start}")
    if title.isascii() and start.isascii():
        return TextHash(whole, whole)
    seen = visible_text(document.text[:LOOKED_AT])
    if len(seen) < DOCUMENT_START:
        seen = visible_text(document.text)
    return TextHash(whole, words_hash(f"{visible_text(title)}\n{seen[:DOCUMENT_START]}"))


@dataclass(frozen=True)
class Sketch:
    """The smallest hashes of a set of texts.

    Attributes:
        count: number of different texts.
        hashes: the smallest ones, or all.
    """

    count: int
    hashes: frozenset[int]

    @classmethod
    def of(cls, hashes: Iterable[int], limit: int | None = None) -> "Sketch":
        """Keep the smallest `limit` of these hashes; None keeps all."""
        every = sorted(set(hashes))
        return cls(len(every), frozenset(every[:limit]))

    @property
    def _end(self) -> float:
        """The hash up to which the sketch is complete."""
        return float("inf") if len(self.hashes) == self.count else float(max(self.hashes, default=0))

    def shares(self, other: "Sketch") -> tuple[float, float]:
        """Estimate the share of this set that is in `other`, and the share of `other` that is in this one."""
        both = self.hashes & other.hashes
        if not both:
            return 0.0, 0.0
        end = min(self._end, other._end)
        common, ours, theirs = (sum(one <= end for one in hashes) for hashes in (both, self.hashes, other.hashes))
        return (common / ours if ours else 0.0), (common / theirs if theirs else 0.0)

    def may_have(self, one: int) -> bool:
        """Whether a hash is in the set; unknown ones, beyond an incomplete sketch, may be."""
        return one in self.hashes or one > self._end

    def text(self) -> str:
        """The hashes in order, as digits without a separator."""
        return "".join(f"{one:0{DIGITS}x}" for one in sorted(self.hashes))

    @classmethod
    def read(cls, count: Any, text: Any) -> "Sketch":
        """Read back `text()`.

        Raises:
            ValueError: not such digits.
        """
        digits = str(text or "")
        every = [int(digits[place : place + DIGITS], 16) for place in range(0, len(digits), DIGITS)]
        return cls(int(count or 0), frozenset(every))
