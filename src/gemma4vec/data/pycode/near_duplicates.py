"""Find near-duplicates by an exact join of token sets on their Jaccard similarity.

Duplicated code makes measured results look up to twice as good (Allamanis, 2019, "The adverse effects of code
duplication in machine learning models of code"). The criterion comes from that paper: the sets of identifiers and
literals have a Jaccard similarity >= 0.8. The join uses prefix filtering (Chaudhuri et al., 2006; Bayardo et al.,
2007): two sets that are similar enough share one of their rarest tokens. It is exact and needs no random seed.
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
    """Return identifiers, numbers, and words in literals and comments, without keywords and punctuation."""
    return frozenset(CODE_TOKEN.findall(source)).difference(keyword.kwlist)


def find_near_pairs(token_sets: Sequence[Iterable[str]], threshold: float = THRESHOLD) -> np.ndarray:
    """Find all pairs i < j of similar sets, where i is the first of the sets equal to it.

    These pairs suffice to keep one of each (`keep_first`) and avoid all pairs among many copies. Empty sets are similar
    to no set.

    Args:
        token_sets: M sets.
        threshold: minimum Jaccard similarity, above 0 and at most 1.

    Returns:
        int64[P, 2]: ordered pairs, i < j in each.
    """
    rows = _encode_by_rarity(token_sets)
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
    """Return bool[count]: keep, in order, each item that is not a near-duplicate of a kept earlier one."""
    kept = np.ones(count, dtype=bool)
    for first, second in pairs:
        if kept[first]:
            kept[second] = False
    return kept


def _encode_by_rarity(token_sets: Sequence[Iterable[str]]) -> list[np.ndarray]:
    """Encode each set as ascending numbers: a token's number is its rank by frequency, rarest first, then by name."""
    frequency: Counter[str] = Counter()
    for tokens in token_sets:
        frequency.update(set(tokens))
    number = {
        token: place for place, token in enumerate(sorted(frequency, key=lambda token: (frequency[token], token)))
    }
    return [np.sort(np.fromiter((number[token] for token in set(tokens)), dtype=np.int64)) for tokens in token_sets]


def _join(rows: list[np.ndarray], threshold: float) -> np.ndarray:
    """Return the pairs i < j of distinct sets with Jaccard similarity >= threshold."""
    if not rows:
        return np.empty((0, 2), dtype=np.int64)
    sizes = np.array([len(row) for row in rows], dtype=np.int64)
    width = int(max(row[-1] for row in rows)) + 1
    full = _incidence_matrix(rows, width)
    # Similar sets share at least ceil(threshold * size) tokens, so at least one of them lies in this prefix.
    needed = np.ceil(threshold * sizes - 1e-9).astype(np.int64)
    prefix = _incidence_matrix(
        [row[: size - least + 1] for row, size, least in zip(rows, sizes, needed, strict=True)], width
    )
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


def _incidence_matrix(rows: list[np.ndarray], width: int) -> sparse.csr_matrix:
    ends = np.cumsum([0, *(len(row) for row in rows)])
    columns = np.concatenate(rows)
    return sparse.csr_matrix((np.ones(len(columns), dtype=np.int32), columns, ends), shape=(len(rows), width))
