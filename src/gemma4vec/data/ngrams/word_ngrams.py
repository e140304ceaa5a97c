"""Runs of words in many texts, hashed at once in numpy: what overlap and near-duplicate search compare.

A text is normalised, then every run of n words is one 64-bit hash. The hash of a run is a polynomial over its bytes
(Karp and Rabin, 1987) taken from prefix sums modulo 2**64, so that no Python loop over words is needed.
Shapes: T texts, W words, B bytes, S runs.
"""

import functools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

# A word; a Han or Kana character is a word of its own, since these scripts set no spaces.
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]|[^\W\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+")
BATCH_BYTES = 4_000_000
SPACE, END = 0x20, 0x0A
MULTIPLIER = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64


def normalize(text: str) -> str:
    """The words of a text in lower case, one space between them: NFKC, casefold, no punctuation, no soft hyphens."""
    return " ".join(WORD.findall(unicodedata.normalize("NFKC", text.replace("\u00ad", "")).casefold()))


@dataclass(frozen=True)
class WordNgrams:
    """The words of T normalised texts, and what the hash of any run of them is computed from.

    Attributes:
        starts_W, ends_W: the byte at which each word starts, and the one after its last.
        first_T: number of the first word of each text, with W behind the last: int64[T + 1].
        sums_B: prefix sums of byte value times power, uint64[B + 1].
    """

    starts_W: np.ndarray
    ends_W: np.ndarray
    first_T: np.ndarray
    sums_B: np.ndarray

    @classmethod
    def from_texts(cls, texts: Sequence[str]) -> "WordNgrams":
        """Of texts that went through `normalize`."""
        joined = ("\n".join(texts) + "\n").encode("utf-8", "replace") if texts else b""
        bytes_B = np.frombuffer(joined, dtype=np.uint8)
        ends_T = np.flatnonzero(bytes_B == END)
        gap_B = (bytes_B == SPACE) | (bytes_B == END)
        word_B = ~gap_B
        before_B = np.concatenate([[True], gap_B[:-1]]) if len(bytes_B) else gap_B
        after_B = np.concatenate([gap_B[1:], [True]]) if len(bytes_B) else gap_B
        starts_W, ends_W = np.flatnonzero(word_B & before_B), np.flatnonzero(word_B & after_B) + 1
        first_T = np.concatenate([[0], np.searchsorted(starts_W, ends_T)]).astype(np.int64)
        sums_B = np.zeros(len(bytes_B) + 1, dtype=np.uint64)
        np.cumsum(_byte_values()[bytes_B] * _powers(MULTIPLIER, len(bytes_B)), out=sums_B[1:])
        return cls(starts_W, ends_W, first_T, sums_B)

    @property
    def lengths(self) -> np.ndarray:
        """int64[T]: how many words each text has."""
        return np.diff(self.first_T)

    def runs(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Every run of n words inside one text: hashes uint64[S] and the texts' numbers int64[S], in order."""
        counts_T = np.maximum(self.lengths - n + 1, 0)
        text_S = np.repeat(np.arange(len(counts_T)), counts_T)
        within_S = np.arange(len(text_S)) - np.repeat(np.cumsum(counts_T) - counts_T, counts_T)
        first_S = self.first_T[:-1][text_S] + within_S
        return self._hash(first_S, first_S + n - 1), text_S

    def openings(self, n: int, least: int) -> tuple[np.ndarray, np.ndarray]:
        """The first n words of each text that has at least `least` (>= n): hashes and the texts' numbers."""
        text_S = np.flatnonzero(self.lengths >= least)
        first_S = self.first_T[:-1][text_S]
        return self._hash(first_S, first_S + n - 1), text_S

    def shingles(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """As `runs`, but a text with fewer than n words is one run; a text without a word has none. Ordered by text."""
        hash_S, text_S = self.runs(n)
        short_T = np.flatnonzero((self.lengths > 0) & (self.lengths < n))
        if len(short_T) == 0:
            return hash_S, text_S
        whole = self._hash(self.first_T[:-1][short_T], self.first_T[1:][short_T] - 1)
        texts = np.concatenate([text_S, short_T])
        order = np.argsort(texts, kind="stable")
        return np.concatenate([hash_S, whole])[order], texts[order]

    def _hash(self, first_S: np.ndarray, last_S: np.ndarray) -> np.ndarray:
        """Hashes of the runs from word `first` to word `last`: the polynomial moved to power 0, then its bits mixed."""
        start_S, end_S = self.starts_W[first_S], self.ends_W[last_S]
        inverse = _powers(pow(MULTIPLIER, -1, 2**64), len(self.sums_B))
        return mix((self.sums_B[end_S] - self.sums_B[start_S]) * inverse[start_S])


def batch_texts(texts: Sequence[str]) -> Iterator[tuple[int, WordNgrams]]:
    """Spans of the texts in batches of some megabytes, each with the number of its first text."""
    start, size = 0, 0
    for place, text in enumerate(texts):
        if size >= BATCH_BYTES:
            yield start, WordNgrams.from_texts(texts[start:place])
            start, size = place, 0
        size += len(text) + 1
    if start < len(texts):
        yield start, WordNgrams.from_texts(texts[start:])


def mix(values: np.ndarray) -> np.ndarray:
    """uint64 values with every bit depending on all (the finaliser of splitmix64; Steele et al., 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@functools.cache
def _byte_values() -> np.ndarray:
    """A random number for each byte, the same in every process."""
    return np.random.default_rng(20_100).integers(1, 2**64, 256, dtype=np.uint64)


_KNOWN_POWERS: dict[int, np.ndarray] = {}


def _powers(base: int, count: int) -> np.ndarray:
    """base**0 to base**(count - 1) modulo 2**64; kept, since every batch needs them."""
    known = _KNOWN_POWERS.get(base)
    if known is None or len(known) < count:
        factors = np.full(max(2 * count, 1), base, dtype=np.uint64)
        factors[0] = 1
        known = _KNOWN_POWERS[base] = np.cumprod(factors, dtype=np.uint64)
    return known[:count]
