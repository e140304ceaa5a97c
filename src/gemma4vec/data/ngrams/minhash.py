"""MinHash: find similar sets without comparing all pairs.

Two sets have the same smallest member in a share of random orders that equals their Jaccard similarity (Broder, 1997).
Signatures are cut into bands, and sets that agree in a whole band are candidates (Indyk and Motwani, 1998). The caller
compares candidates exactly, so chance can miss a pair but never invent one. With 32 bands of 4 rows, a pair with
Jaccard 0.7 is missed once in 6,000 times, a pair with 0.8 once in 10 million.
Shapes: T texts, S shingles, P permutations.
"""

import numpy as np

from gemma4vec.data.ngrams.word_ngrams import mix

BANDS, ROWS = 32, 4
PERMUTATIONS = BANDS * ROWS


def compute_signatures(hash_S: np.ndarray, starts_T: np.ndarray) -> np.ndarray:
    """Return signatures, uint32[T, P]: the smallest value of P random functions over each set's hashes.

    Args:
        hash_S: uint64 hashes of all members, set after set; a member may repeat.
        starts_T: index in `hash_S` at which each set starts; no set is empty.
    """
    factors, offsets = np.random.default_rng(19_970).integers(0, 2**64, (2, PERMUTATIONS), dtype=np.uint64)
    signatures_TP = np.empty((len(starts_T), PERMUTATIONS), dtype=np.uint32)
    if len(starts_T) == 0:
        return signatures_TP
    for column, (factor, offset) in enumerate(zip(factors | np.uint64(1), offsets, strict=True)):
        values_S = ((hash_S * factor + offset) >> np.uint64(32)).astype(np.uint32)
        signatures_TP[:, column] = np.minimum.reduceat(values_S, starts_T)
    return signatures_TP


def compute_band_keys(signatures_TP: np.ndarray) -> np.ndarray:
    """Return one hash for each band of a signature, uint64[T, BANDS]; two sets that share one are candidates."""
    parts = signatures_TP.reshape(len(signatures_TP), BANDS, ROWS).astype(np.uint64)
    keys = np.broadcast_to(np.arange(1, BANDS + 1, dtype=np.uint64), parts.shape[:2])
    for row in range(ROWS):
        keys = mix(keys ^ parts[:, :, row])
    return keys


def jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """Return the Jaccard similarity of two sets, each a sorted array without duplicates."""
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / (len(one) + len(other) - common) if common else 0.0
