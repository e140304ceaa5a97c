"""Find exact, contained and near-duplicate matches of texts in an index of other texts.

Rules, applied to normalized words (`word_ngrams.normalize`); the first that holds names the match:

- exact: the texts are equal;
- contained: the shorter text has at least `CONTAINED_WORDS` words and occurs in the longer one. Its last word may be
  cut, because some data sets store only the first characters of each text;
- near: the sets of word n-grams of length `SHINGLE` have a Jaccard similarity of at least `NEAR`.

Exact and contained matches are complete. Candidates for near matches come from MinHash and are then compared exactly.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from gemma4vec.data.ngrams.minhash import BANDS, compute_band_keys, compute_signatures, jaccard
from gemma4vec.data.ngrams.word_ngrams import WordNgrams, batch_texts, normalize

Kind = Literal["exact", "contained", "near"]
KINDS: tuple[Kind, ...] = ("exact", "contained", "near")
CONTAINED_WORDS = 8
# A contained text is looked up by its first words. They are fewer than CONTAINED_WORDS, so a cut last word is not one.
LOOKUP_WORDS = 6
SHINGLE = 3
NEAR = 0.7


class Match(NamedTuple):
    """A match between a query text and an entry of the index.

    Attributes:
        text, entry: positions in the texts that were looked up and in the index.
        similarity: 1 for an exact match; for a contained one the ratio of the texts' lengths in characters; for a near
            one the Jaccard similarity.
    """

    text: int
    entry: int
    kind: Kind
    similarity: float


class OverlapIndex:
    """An index of texts in which other texts are looked up.

    Args:
        texts: the texts to index.
        near: minimum Jaccard similarity of a near match.
    """

    def __init__(self, texts: Sequence[str], near: float = NEAR) -> None:
        self.near = near
        self._unique, self._entries = _deduplicate(texts)
        self._exact = {text: place for place, text in enumerate(self._unique)}
        all_ngrams, first_ngrams, bands = [], [], []
        for start, ngrams in batch_texts(self._unique):
            all_ngrams.append(_shift(ngrams.ngrams(LOOKUP_WORDS), start))
            first_ngrams.append(_shift(ngrams.first_ngrams(LOOKUP_WORDS, CONTAINED_WORDS), start))
            bands.append(_shift(_compute_bands(ngrams), start))
        self._all_ngrams = _SortedKeys(*_concatenate(all_ngrams))
        self._first_ngrams = _SortedKeys(*_concatenate(first_ngrams))
        keys, texts_S = _concatenate(bands)
        keys = keys.reshape(-1, BANDS)
        self._bands = [_SortedKeys(keys[:, band], texts_S) for band in range(BANDS)]
        self._shingles = _ShingleSets(self._unique)

    def match(self, texts: Sequence[str]) -> list[Match]:
        """Return every match of `texts` with the index, each pair once, ordered by text and entry."""
        unique, places = _deduplicate(texts)
        found: dict[tuple[int, int], tuple[Kind, float]] = {
            (number, self._exact[text]): ("exact", 1.0) for number, text in enumerate(unique) if text in self._exact
        }
        shingles = _ShingleSets(unique)
        for start, ngrams in batch_texts(unique):
            pairs = np.concatenate(
                [
                    self._all_ngrams.pairs(*ngrams.first_ngrams(LOOKUP_WORDS, CONTAINED_WORDS)),
                    self._first_ngrams.pairs(*ngrams.ngrams(LOOKUP_WORDS)),
                ]
            )
            self._add_matches(pairs, start, found, lambda one, other: self._match_contained(unique[one], other))
            keys, texts_S = _compute_bands(ngrams)
            pairs = np.concatenate([lookup.pairs(keys[:, band], texts_S) for band, lookup in enumerate(self._bands)])
            self._add_matches(pairs, start, found, lambda one, other: self._match_near(shingles, one, other))
        return sorted(
            Match(text, entry, kind, similarity)
            for (number, place), (kind, similarity) in found.items()
            for text in places[number]
            for entry in self._entries[place]
        )

    def _add_matches(
        self,
        pairs: np.ndarray,
        start: int,
        found: dict[tuple[int, int], tuple[Kind, float]],
        judge: Callable[[int, int], tuple[Kind, float] | None],
    ) -> None:
        for number, place in np.unique(pairs, axis=0).tolist() if len(pairs) else ():
            key = (number + start, place)
            if key not in found and (judged := judge(*key)) is not None:
                found[key] = judged

    def _match_contained(self, text: str, place: int) -> tuple[Kind, float] | None:
        shorter, longer = sorted((text, self._unique[place]), key=len)
        # The leading spaces make a match start at a word. It may end inside a word, because the last one may be cut.
        if shorter.count(" ") < CONTAINED_WORDS - 1 or f" {shorter}" not in f" {longer}":
            return None
        return "contained", len(shorter) / len(longer)

    def _match_near(self, shingles: "_ShingleSets", number: int, place: int) -> tuple[Kind, float] | None:
        similarity = jaccard(shingles[number], self._shingles[place])
        return ("near", similarity) if similarity >= self.near else None


class _SortedKeys:
    """Sorted keys, each with the index of its text."""

    def __init__(self, keys_S: np.ndarray, texts_S: np.ndarray) -> None:
        order = np.argsort(keys_S, kind="stable")
        self.keys_S, self.texts_S = keys_S[order], texts_S[order].astype(np.int32)

    def pairs(self, keys_S: np.ndarray, texts_S: np.ndarray) -> np.ndarray:
        """Return (given text, indexed text) for every equal key, int64[P, 2]."""
        low = np.searchsorted(self.keys_S, keys_S, "left")
        hit = np.flatnonzero(self.keys_S[np.minimum(low, len(self.keys_S) - 1)] == keys_S) if len(self.keys_S) else low
        if len(self.keys_S) == 0 or len(hit) == 0:
            return np.empty((0, 2), dtype=np.int64)
        low, counts = low[hit], np.searchsorted(self.keys_S, keys_S[hit], "right") - low[hit]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.stack([np.repeat(texts_S[hit], counts), self.texts_S[np.repeat(low, counts) + within]], axis=1)


class _ShingleSets:
    """The set of shingles of each text, as sorted hashes; computed on first access."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts
        self.computed: dict[int, np.ndarray] = {}

    def __getitem__(self, place: int) -> np.ndarray:
        if place not in self.computed:
            self.computed[place] = np.unique(WordNgrams.from_texts([self.texts[place]]).shingles(SHINGLE)[0])
        return self.computed[place]


def _deduplicate(texts: Sequence[str]) -> tuple[list[str], list[list[int]]]:
    """Return the unique normalized texts and the positions of each; drop texts without words."""
    places: dict[str, list[int]] = {}
    for place, text in enumerate(texts):
        if normal := normalize(text):
            places.setdefault(normal, []).append(place)
    return list(places), list(places.values())


def _compute_bands(ngrams: WordNgrams) -> tuple[np.ndarray, np.ndarray]:
    """Return band keys, uint64[T, BANDS], of the texts that have words, and these texts' indices."""
    hash_S, text_S = ngrams.shingles(SHINGLE)
    texts_T, starts_T = np.unique(text_S, return_index=True)
    return compute_band_keys(compute_signatures(hash_S, starts_T)), texts_T


def _shift(found: tuple[np.ndarray, np.ndarray], start: int) -> tuple[np.ndarray, np.ndarray]:
    return found[0], found[1] + start


def _concatenate(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    if not parts:
        return np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64)
    keys, texts = zip(*parts, strict=True)
    return np.concatenate(keys), np.concatenate(texts)
