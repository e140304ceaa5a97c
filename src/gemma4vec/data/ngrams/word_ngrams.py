"""Word n-grams of many texts, hashed together in numpy; overlap and near-duplicate search compare the hashes.

Texts are normalized first; then every n-gram is one 64-bit hash. The hash is a polynomial over the n-gram's bytes (Karp
and Rabin, 1987), computed from prefix sums modulo 2**64, so no Python loop visits the words.
Shapes: T texts, W words, B bytes, S n-grams.
"""

import functools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

# A word. Han and Kana characters are one word each, because these scripts use no spaces.
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]|[^\W\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+")
BATCH_BYTES = 4_000_000
SPACE, END = 0x20, 0x0A
MULTIPLIER = 0x9E3779B97F4A7C15  # odd, so it has an inverse modulo 2**64


def normalize(text: str) -> str:
    """Return a text's words in lower case, separated by single spaces.

    Applies NFKC and casefold; removes punctuation and soft hyphens.
    """
    return " ".join(WORD.findall(unicodedata.normalize("NFKC", text.replace("\u00ad", "")).casefold()))


@dataclass(frozen=True)
class WordNgrams:
    """The words of T normalized texts, and the prefix sums from which n-gram hashes are computed.

    Attributes:
        starts_W, ends_W: byte at which each word starts, and the byte after its end.
        first_T: index of each text's first word, then W: int64[T + 1].
        sums_B: prefix sums of byte value times power, uint64[B + 1].
    """

    starts_W: np.ndarray
    ends_W: np.ndarray
    first_T: np.ndarray
    sums_B: np.ndarray

    @classmethod
    def from_texts(cls, texts: Sequence[str]) -> "WordNgrams":
        """Index texts that `normalize` returned."""
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
        """Number of words of each text, int64[T]."""
        return np.diff(self.first_T)

    def ngrams(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Return every n-gram in order: hashes uint64[S] and text indices int64[S]."""
        counts_T = np.maximum(self.lengths - n + 1, 0)
        text_S = np.repeat(np.arange(len(counts_T)), counts_T)
        within_S = np.arange(len(text_S)) - np.repeat(np.cumsum(counts_T) - counts_T, counts_T)
        first_S = self.first_T[:-1][text_S] + within_S
        return self._hash(first_S, first_S + n - 1), text_S

    def first_ngrams(self, n: int, min_words: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the first n-gram of each text of at least `min_words` (>= n) words: hashes and text indices."""
        text_S = np.flatnonzero(self.lengths >= min_words)
        first_S = self.first_T[:-1][text_S]
        return self._hash(first_S, first_S + n - 1), text_S

    def shingles(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the n-grams as `ngrams` does, ordered by text, plus each text of 1 to n - 1 words as a whole."""
        hash_S, text_S = self.ngrams(n)
        short_T = np.flatnonzero((self.lengths > 0) & (self.lengths < n))
        if len(short_T) == 0:
            return hash_S, text_S
        whole = self._hash(self.first_T[:-1][short_T], self.first_T[1:][short_T] - 1)
        texts = np.concatenate([text_S, short_T])
        order = np.argsort(texts, kind="stable")
        return np.concatenate([hash_S, whole])[order], texts[order]

    def _hash(self, first_S: np.ndarray, last_S: np.ndarray) -> np.ndarray:
        """Hash the words from `first` to `last`: shift the polynomial to power 0, then mix its bits."""
        start_S, end_S = self.starts_W[first_S], self.ends_W[last_S]
        inverse = _powers(pow(MULTIPLIER, -1, 2**64), len(self.sums_B))
        return mix((self.sums_B[end_S] - self.sums_B[start_S]) * inverse[start_S])


def batch_texts(texts: Sequence[str]) -> Iterator[tuple[int, WordNgrams]]:
    """Index the texts in batches of a few megabytes; yield the index of each batch's first text and its n-grams."""
    start, size = 0, 0
    for index, text in enumerate(texts):
        if size >= BATCH_BYTES:
            yield start, WordNgrams.from_texts(texts[start:index])
            start, size = index, 0
        size += len(text) + 1
    if start < len(texts):
        yield start, WordNgrams.from_texts(texts[start:])


def mix(values: np.ndarray) -> np.ndarray:
    """Mix uint64 values so that every output bit depends on all input bits (splitmix64; Steele et al., 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@functools.cache
def _byte_values() -> np.ndarray:
    """Return a random number for each byte value, the same in every process."""
    return np.random.default_rng(20_100).integers(1, 2**64, 256, dtype=np.uint64)


_CACHED_POWERS: dict[int, np.ndarray] = {}


def _powers(base: int, count: int) -> np.ndarray:
    """Return base**0 to base**(count - 1) modulo 2**64; cached, because every batch needs them."""
    powers = _CACHED_POWERS.get(base)
    if powers is None or len(powers) < count:
        factors = np.full(max(2 * count, 1), base, dtype=np.uint64)
        factors[0] = 1
        powers = _CACHED_POWERS[base] = np.cumprod(factors, dtype=np.uint64)
    return powers[:count]
