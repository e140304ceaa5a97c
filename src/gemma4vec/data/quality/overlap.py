"""Which texts stand, whole or nearly, in others: exact, contained and near-duplicate matches against an index.

Rules, on normalised words (`spans.normalize`), the first that holds names the match:

- exact: the texts are the same;
- contained: the shorter has at least `CONTAINED_WORDS` words and stands in the longer as one run. Its last word may be
  cut, as it is where a data set stores the first so many characters;
- near: the sets of runs of `SHINGLE` words have a Jaccard similarity of at least `NEAR`.

Exact and contained matches are complete: nothing is sampled. Near ones are candidates of `minhash`, then compared.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from gemma4vec.data.ngrams.minhash import BANDS, compute_band_keys, compute_signatures, jaccard
from gemma4vec.data.ngrams.word_ngrams import WordNgrams, batch_texts, normalize

Kind = Literal["exact", "contained", "near"]
KINDS: tuple[Kind, ...] = ("exact", "contained", "near")
CONTAINED_WORDS = 8
OPENING = 6  # words by which a contained text is looked up; fewer than CONTAINED_WORDS, so that a cut end is not one
SHINGLE = 3
NEAR = 0.7


class Match(NamedTuple):
    """Text number `text` of what was asked and `entry` of the index; `similarity` is the Jaccard of a near match,
    the shorter's share of the longer's characters of a contained one, and 1 of an exact one."""

    text: int
    entry: int
    kind: Kind
    similarity: float


class OverlapIndex:
    """An index of texts in which others are looked up."""

    def __init__(self, texts: Sequence[str], near: float = NEAR) -> None:
        self.near = near
        self._unique, self._entries = _distinct(texts)
        self._exact = {text: place for place, text in enumerate(self._unique)}
        runs, openings, bands = [], [], []
        for start, spans in batch_texts(self._unique):
            runs.append(_moved(spans.runs(OPENING), start))
            openings.append(_moved(spans.openings(OPENING, CONTAINED_WORDS), start))
            bands.append(_moved(_bands(spans), start))
        self._runs = _Lookup(*_joined(runs))
        self._openings = _Lookup(*_joined(openings))
        keys, texts_S = _joined(bands)
        keys = keys.reshape(-1, BANDS)
        self._bands = [_Lookup(keys[:, band], texts_S) for band in range(BANDS)]
        self._shingles = _Shingles(self._unique)

    def match(self, texts: Sequence[str]) -> list[Match]:
        """Every match of `texts` with the index, each pair once, ordered by text and entry."""
        unique, places = _distinct(texts)
        found: dict[tuple[int, int], tuple[Kind, float]] = {
            (number, self._exact[text]): ("exact", 1.0) for number, text in enumerate(unique) if text in self._exact
        }
        shingles = _Shingles(unique)
        for start, spans in batch_texts(unique):
            pairs = np.concatenate(
                [
                    self._runs.pairs(*spans.openings(OPENING, CONTAINED_WORDS)),
                    self._openings.pairs(*spans.runs(OPENING)),
                ]
            )
            self._keep(pairs, start, found, lambda one, other: self._contained(unique[one], other))
            keys, texts_S = _bands(spans)
            pairs = np.concatenate([lookup.pairs(keys[:, band], texts_S) for band, lookup in enumerate(self._bands)])
            self._keep(pairs, start, found, lambda one, other: self._similar(shingles, one, other))
        return sorted(
            Match(text, entry, kind, similarity)
            for (number, place), (kind, similarity) in found.items()
            for text in places[number]
            for entry in self._entries[place]
        )

    def _keep(
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

    def _contained(self, text: str, place: int) -> tuple[Kind, float] | None:
        shorter, longer = sorted((text, self._unique[place]), key=len)
        # Spaces around: a run starts at the start of a word. Its end may be inside of one, see above.
        if shorter.count(" ") < CONTAINED_WORDS - 1 or f" {shorter}" not in f" {longer}":
            return None
        return "contained", len(shorter) / len(longer)

    def _similar(self, shingles: "_Shingles", number: int, place: int) -> tuple[Kind, float] | None:
        similarity = jaccard(shingles[number], self._shingles[place])
        return ("near", similarity) if similarity >= self.near else None


class _Lookup:
    """Sorted keys with the text that each belongs to."""

    def __init__(self, keys_S: np.ndarray, texts_S: np.ndarray) -> None:
        order = np.argsort(keys_S, kind="stable")
        self.keys_S, self.texts_S = keys_S[order], texts_S[order].astype(np.int32)

    def pairs(self, keys_S: np.ndarray, texts_S: np.ndarray) -> np.ndarray:
        """int64[P, 2]: (asking text, found text) for every equal key."""
        low = np.searchsorted(self.keys_S, keys_S, "left")
        hit = np.flatnonzero(self.keys_S[np.minimum(low, len(self.keys_S) - 1)] == keys_S) if len(self.keys_S) else low
        if len(self.keys_S) == 0 or len(hit) == 0:
            return np.empty((0, 2), dtype=np.int64)
        low, counts = low[hit], np.searchsorted(self.keys_S, keys_S[hit], "right") - low[hit]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.stack([np.repeat(texts_S[hit], counts), self.texts_S[np.repeat(low, counts) + within]], axis=1)


class _Shingles:
    """The set of shingles of each text, as sorted hashes, made when first asked for."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts
        self.known: dict[int, np.ndarray] = {}

    def __getitem__(self, place: int) -> np.ndarray:
        if place not in self.known:
            self.known[place] = np.unique(WordNgrams.from_texts([self.texts[place]]).shingles(SHINGLE)[0])
        return self.known[place]


def _distinct(texts: Sequence[str]) -> tuple[list[str], list[list[int]]]:
    """The normalised texts without repetition, and where each came from; texts without a word are left out."""
    places: dict[str, list[int]] = {}
    for place, text in enumerate(texts):
        if normal := normalize(text):
            places.setdefault(normal, []).append(place)
    return list(places), list(places.values())


def _bands(spans: WordNgrams) -> tuple[np.ndarray, np.ndarray]:
    """Band keys uint64[T, BANDS] of the texts that have a word, and these texts' numbers."""
    hash_S, text_S = spans.shingles(SHINGLE)
    texts_T, starts_T = np.unique(text_S, return_index=True)
    return compute_band_keys(compute_signatures(hash_S, starts_T)), texts_T


def _moved(found: tuple[np.ndarray, np.ndarray], start: int) -> tuple[np.ndarray, np.ndarray]:
    return found[0], found[1] + start


def _joined(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    if not parts:
        return np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64)
    keys, texts = zip(*parts, strict=True)
    return np.concatenate(keys), np.concatenate(texts)
