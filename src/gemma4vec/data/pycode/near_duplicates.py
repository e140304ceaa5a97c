"""Near-duplicates: an exact join of token sets on their Jaccard similarity.

Duplicated code makes measured results look up to twice as good (Allamanis, 2019, "The adverse effects of code
duplication in machine learning models of code"); the criterion, Jaccard of the sets of identifiers and literals >= 0.8,
is from there. The join is by prefix filtering (Chaudhuri et al., 2006; Bayardo et al., 2007): two sets that are similar
enough must share one of their rarest tokens. Nothing is estimated, so nothing depends on a random seed.
"""

import keyword
import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import scipy.sparse as sparse

THRESHOLD = 0.8
CODE_TOKEN = re.compile(r"[^\W\d]\w*|\d[\w.]*")
BLOCK = 2_000


def function_tokens(source: str) -> frozenset[str]:
    """Identifiers, numbers and words inside literals and comments; no keywords, no punctuation."""
    return frozenset(CODE_TOKEN.findall(source)).difference(keyword.kwlist)


def near_pairs(token_sets: Sequence[Iterable[str]], threshold: float = THRESHOLD) -> np.ndarray:
    """All pairs i < j of sets with a Jaccard similarity of at least `threshold`, i being the first of its equals.

    That is enough to keep one of each (`keep_first`) and spares the pairs among many copies. Empty sets are like none.

    Args:
        token_sets: M sets.
        threshold: above 0, at most 1.

    Returns:
        int64[P, 2], i < j in each row, ordered.
    """
    rows = _rarest_first(token_sets)
    places: dict[bytes, list[int]] = {}
    for place, row in enumerate(rows):
        if len(row):
            places.setdefault(row.tobytes(), []).append(place)
    equals = list(places.values())
    pairs = [(copies[0], copy) for copies in equals for copy in copies[1:]]
    for one, other in _join([rows[copies[0]] for copies in equals], threshold):
        for first, copies in ((equals[one][0], equals[other]), (equals[other][0], equals[one])):
            pairs += [(first, copy) for copy in copies if first < copy]
    return np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)


def keep_first(pairs: np.ndarray, count: int) -> np.ndarray:
    """bool[count]: in order, keep what is no near-duplicate of something kept before it."""
    kept = np.ones(count, dtype=bool)
    for first, second in pairs:
        if kept[first]:
            kept[second] = False
    return kept


def _rarest_first(token_sets: Sequence[Iterable[str]]) -> list[np.ndarray]:
    """Each set as ascending numbers; a token's number is its place in the order of rarity (then of the alphabet)."""
    frequency: Counter[str] = Counter()
    for tokens in token_sets:
        frequency.update(set(tokens))
    number = {
        token: place for place, token in enumerate(sorted(frequency, key=lambda token: (frequency[token], token)))
    }
    return [np.sort(np.fromiter((number[token] for token in set(tokens)), dtype=np.int64)) for tokens in token_sets]


def _join(rows: list[np.ndarray], threshold: float) -> np.ndarray:
    """Pairs (i < j) of distinct sets with Jaccard >= threshold."""
    if not rows:
        return np.empty((0, 2), dtype=np.int64)
    sizes = np.array([len(row) for row in rows], dtype=np.int64)
    width = int(max(row[-1] for row in rows)) + 1
    full = _incidence(rows, width)
    # Similar sets overlap in at least ceil(threshold * size) tokens: they cannot miss each other in all of this prefix.
    needed = np.ceil(threshold * sizes - 1e-9).astype(np.int64)
    prefix = _incidence([row[: size - least + 1] for row, size, least in zip(rows, sizes, needed, strict=True)], width)
    transposed = prefix.T.tocsr()
    found = []
    for start in range(0, len(rows), BLOCK):
        shared = (prefix[start : start + BLOCK] @ transposed).tocoo()
        left, right = shared.row.astype(np.int64) + start, shared.col.astype(np.int64)
        smaller, larger = np.minimum(sizes[left], sizes[right]), np.maximum(sizes[left], sizes[right])
        possible = (left < right) & (smaller >= threshold * larger - 1e-9)
        left, right = left[possible], right[possible]
        for at in range(0, len(left), 50_000):
            i, j = left[at : at + 50_000], right[at : at + 50_000]
            common = np.asarray(full[i].multiply(full[j]).sum(axis=1)).ravel()
            similar = common >= threshold * (sizes[i] + sizes[j] - common) - 1e-9
            found.append(np.stack([i[similar], j[similar]], axis=1))
    return np.concatenate(found) if found else np.empty((0, 2), dtype=np.int64)


def _incidence(rows: list[np.ndarray], width: int) -> sparse.csr_matrix:
    ends = np.cumsum([0, *(len(row) for row in rows)])
    columns = np.concatenate(rows)
    return sparse.csr_matrix((np.ones(len(columns), dtype=np.int32), columns, ends), shape=(len(rows), width))
