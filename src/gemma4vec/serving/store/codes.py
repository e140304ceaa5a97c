"""Small codes of vectors, which choose candidates fast; full-precision vectors then decide.

binary    one bit a dimension, the sign after the mean is subtracted; nearest by Hamming distance
pca_binary  signs of random mixtures of the principal directions (as ITQ begins; Gong and Lazebnik 2011): a few bits
          choose many rows, all bits choose few of these
int8      one byte a dimension and one scale a row; nearest by inner product
prefix    the leading dimensions in fp32 at length one (Matryoshka models; Kusupati et al. 2022, arXiv:2205.13147)
pca       the directions in which the vectors vary most, in fp32: a prefix for models without Matryoshka training
pq        product quantization of the principal directions, by faiss (`product_codes.py`)

Shapes: N queries, M rows, D dimensions, W 64-bit words of a row, E dimensions of a prefix, B bits, C candidates.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gemma4vec.errors import InputError
from gemma4vec.serving.store.product_codes import (
    ProductCodes,
    load_faiss,
    make_product_codes,
    product_shapes,
    product_width,
)

Vectors = NDArray[np.float32]
Rows = NDArray[np.int64]
Arrays = dict[str, np.ndarray]
KINDS = ("pq", "pca_binary", "binary", "int8", "prefix", "pca")
FEWEST_DIMENSIONS = {"pq": 16, "pca_binary": 64, "binary": 64, "int8": 1, "prefix": 16, "pca": 16}
BLOCK = 16_384
SAMPLED = 20_000  # rows whose second moments give the directions of "pca", "pca_binary" and "pq"
COARSE_WORDS, FINE_WORDS = 3, 7  # of "pca_binary"; a byte counts the ones of three words
COARSE_TIMES = 20  # rows that the coarse words choose for each row that all words choose


class Codes(Protocol):
    """Codes of M rows.

    Attributes:
        parallel: whether several threads find more in a second; a matrix product has threads of its own.
    """

    parallel: bool

    def nearest(self, query_D: Vectors, count: int, mask_M: NDArray[np.bool_] | None) -> Rows:
        """Return at least `count` rows that may be nearest (all where fewer match the mask), in any order."""


def make_codes(kind: str, vectors_MD: Vectors) -> Arrays:
    """Return the arrays of a kind's codes, for `open_codes`. Vectors are read in blocks.

    Raises:
        InputError: the vectors are too short for this kind, or its package is not installed.
    """
    count, dimension = vectors_MD.shape
    if dimension < FEWEST_DIMENSIONS[kind]:
        raise InputError(
            f"index {kind}: needs at least {FEWEST_DIMENSIONS[kind]} dimensions, not {dimension}; use int8"
        )
    if kind == "binary":
        offset_D = _mean(vectors_MD)
        words_WM = np.empty((-(-dimension // 64), count), np.uint64)
        for start, block_BD in _blocks(vectors_MD):
            words_WM[:, start : start + len(block_BD)] = pack_signs(block_BD - offset_D).T
        return {"words": words_WM, "offset": offset_D}
    if kind == "pca_binary":
        offset_D, axes_DE, mixing_EB = _mean(vectors_MD), _principal_axes(vectors_MD), _mixing(_width(dimension))
        coarse_WM, fine_MW = np.empty((COARSE_WORDS, count), np.uint64), np.empty((count, FINE_WORDS), np.uint64)
        for start, block_BD in _blocks(vectors_MD):
            words_RW = pack_signs((block_BD - offset_D) @ axes_DE @ mixing_EB)
            coarse_WM[:, start : start + len(block_BD)] = words_RW[:, :COARSE_WORDS].T
            fine_MW[start : start + len(block_BD)] = words_RW[:, COARSE_WORDS:]
        return {"coarse": coarse_WM, "fine": fine_MW, "offset": offset_D, "axes": axes_DE, "mixing": mixing_EB}
    if kind == "int8":
        codes_MD, scales_M = np.empty((count, dimension), np.int8), np.empty(count, np.float32)
        for start, block_BD in _blocks(vectors_MD):
            scales_B = np.abs(block_BD).max(axis=1) / 127
            codes_MD[start : start + len(block_BD)] = np.rint(block_BD / scales_B[:, None])
            scales_M[start : start + len(block_BD)] = scales_B
        return {"codes": codes_MD, "scales": scales_M}
    if kind == "pq":
        load_faiss()
        principal_DE = _principal_axes(vectors_MD, product_width(dimension))
        return make_product_codes(principal_DE, _spread(vectors_MD), _blocks(vectors_MD), count)
    axes_DE = _leading_axes(dimension) if kind == "prefix" else _principal_axes(vectors_MD)
    prefix_ME = np.empty((count, axes_DE.shape[1]), np.float32)
    for start, block_BD in _blocks(vectors_MD):
        kept_BE = block_BD @ axes_DE
        if kind == "prefix":
            kept_BE /= np.maximum(np.linalg.norm(kept_BE, axis=1, keepdims=True), np.float32(1e-12))
        prefix_ME[start : start + len(block_BD)] = kept_BE
    return {"prefix": prefix_ME, "axes": axes_DE}


def open_codes(kind: str, arrays: Arrays, count: int, dimension: int) -> Codes:
    """Open the arrays that `make_codes` made.

    Raises:
        ValueError: their shapes or types are not those of M = `count` rows of `dimension`.
        InputError: a package that the kind needs is not installed.
    """
    expected: dict[str, tuple[tuple[int, ...], type]]
    if kind == "binary":
        expected = {"words": ((-(-dimension // 64), count), np.uint64), "offset": ((dimension,), np.float32)}
    elif kind == "pca_binary":
        expected = {
            "coarse": ((COARSE_WORDS, count), np.uint64),
            "fine": ((count, FINE_WORDS), np.uint64),
            "offset": ((dimension,), np.float32),
            "axes": ((dimension, _width(dimension)), np.float32),
            "mixing": ((_width(dimension), 64 * (COARSE_WORDS + FINE_WORDS)), np.float32),
        }
    elif kind == "int8":
        expected = {"codes": ((count, dimension), np.int8), "scales": ((count,), np.float32)}
    elif kind == "pq":
        expected = product_shapes(count, dimension)
    else:
        width = arrays["axes"].shape[1] if "axes" in arrays and arrays["axes"].ndim == 2 else 0
        expected = {"prefix": ((count, width), np.float32), "axes": ((dimension, width), np.float32)}
    for name, (shape, dtype) in expected.items():
        if name not in arrays or arrays[name].shape != shape or arrays[name].dtype != dtype:
            raise ValueError(f"codes `{name}` are not those of {count} rows of dimension {dimension}")
    if kind == "binary":
        return _BinaryCodes(arrays["words"], arrays["offset"])
    if kind == "pca_binary":
        return _MixedBinaryCodes(arrays["coarse"], arrays["fine"], arrays["offset"], arrays["axes"], arrays["mixing"])
    if kind == "int8":
        return _Int8Codes(arrays["codes"], arrays["scales"])
    if kind == "pq":
        return ProductCodes(arrays)
    return _PrefixCodes(arrays["prefix"], arrays["axes"])


def pack_signs(vectors_RD: NDArray[np.floating[Any]]) -> NDArray[np.uint64]:
    """Return one bit for each number above zero, uint64[R, W]; the bits after the last dimension are zero."""
    bits = np.packbits(vectors_RD > 0, axis=1)
    padded = np.zeros((len(bits), -(-vectors_RD.shape[1] // 64) * 8), np.uint8)
    padded[:, : bits.shape[1]] = bits
    return padded.view(np.uint64)


class _BinaryCodes:
    """Signs, searched by Hamming distance. Words of equal place lie together, so that each step is one long loop."""

    parallel = True

    def __init__(self, words_WM: NDArray[np.uint64], offset_D: Vectors) -> None:
        self.words_WM, self.offset_D = words_WM, offset_D
        self._local = threading.local()

    def nearest(self, query_D: Vectors, count: int, mask_M: NDArray[np.bool_] | None) -> Rows:
        distances_M = self.distances(query_D)
        farthest = 64 * len(self.words_WM)
        if mask_M is not None:
            distances_M[~mask_M] = farthest + 1
        return _within(distances_M, count, farthest)

    def distances(self, query_D: Vectors) -> NDArray[np.uint16]:
        """Return the Hamming distance to each row, uint16[M]; the thread's next call overwrites it."""
        words_W = pack_signs((query_D - self.offset_D)[None])[0]
        differing, ones, few, distances_M = self._buffers()
        distances_M[:] = 0
        for place, word in enumerate(words_W):
            np.bitwise_xor(self.words_WM[place], word, out=differing)
            # A byte holds the ones of three words, 192 at most; sums of bytes are the fastest.
            if place % 3 == 0:
                np.bitwise_count(differing, out=few)
            else:
                np.add(few, np.bitwise_count(differing, out=ones), out=few)
            if place % 3 == 2 or place == len(words_W) - 1:
                np.add(distances_M, few, out=distances_M)
        return distances_M

    def _buffers(self) -> tuple[NDArray[np.uint64], NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint16]]:
        """Return this thread's arrays: new memory would cost a page fault each 4 kB."""
        found = getattr(self._local, "buffers", None)
        if found is None:
            rows = self.words_WM.shape[1]
            bytes_M = np.empty((2, rows), np.uint8)
            found = np.empty(rows, np.uint64), bytes_M[0], bytes_M[1], np.empty(rows, np.uint16)
            self._local.buffers = found
        return found  # type: ignore[no-any-return]


class _MixedBinaryCodes:
    """Signs of mixed directions. Each bit sees all principal directions, so that a few words rank nearly as all do."""

    parallel = True

    def __init__(
        self,
        coarse_WM: NDArray[np.uint64],
        fine_MW: NDArray[np.uint64],
        offset_D: Vectors,
        axes_DE: Vectors,
        mixing_EB: Vectors,
    ) -> None:
        self.coarse_WM, self.fine_MW = coarse_WM, fine_MW
        self.offset_D, self.axes_DE, self.mixing_EB = offset_D, axes_DE, mixing_EB
        self._local = threading.local()

    def nearest(self, query_D: Vectors, count: int, mask_M: NDArray[np.bool_] | None) -> Rows:
        words_W = pack_signs(((query_D - self.offset_D) @ self.axes_DE @ self.mixing_EB)[None])[0]
        coarse_M = self._coarse_distances(words_W, mask_M)
        near_C = _within(coarse_M, count * COARSE_TIMES, 64 * COARSE_WORDS)
        ones_CW = np.bitwise_count(self.fine_MW[near_C] ^ words_W[COARSE_WORDS:])
        fine_C = ones_CW.astype(np.float32) @ np.ones(
            FINE_WORDS, np.float32
        )  # a sum of short rows takes five times as long
        distances_C = coarse_M[near_C] + fine_C.astype(np.uint16)
        return near_C[_within(distances_C, count, 64 * (COARSE_WORDS + FINE_WORDS))]

    def _coarse_distances(self, words_W: NDArray[np.uint64], mask_M: NDArray[np.bool_] | None) -> NDArray[np.uint8]:
        """Return the Hamming distance of the first words; one more than the largest for rows outside the mask."""
        if not hasattr(self._local, "buffers"):  # new memory would cost a page fault each 4 kB
            rows = self.coarse_WM.shape[1]
            self._local.buffers = np.empty(rows, np.uint64), np.empty(rows, np.uint8), np.empty(rows, np.uint8)
        differing, ones_M, distances_M = self._local.buffers
        for place in range(COARSE_WORDS):
            np.bitwise_xor(self.coarse_WM[place], words_W[place], out=differing)
            if place == 0:
                np.bitwise_count(differing, out=distances_M)
            else:
                np.add(distances_M, np.bitwise_count(differing, out=ones_M), out=distances_M)
        if mask_M is not None:
            distances_M[~mask_M] = 64 * COARSE_WORDS + 1
        return distances_M  # type: ignore[no-any-return]


def _within(distances_M: NDArray[np.unsignedinteger], count: int, farthest: int) -> Rows:
    """Return at least `count` rows of the smallest distances, or all whose distance is not above `farthest`."""
    if len(distances_M) >= 32 * count and count >= 256:  # few of many: a sample shows the distance
        rows_within = np.cumsum(np.bincount(distances_M[::16], minlength=farthest + 2))
        least = int(np.searchsorted(rows_within, count // 16))
        for distance in (least, least + 1):
            found = np.flatnonzero(distances_M <= min(distance, farthest))
            if count <= len(found) <= 2 * count:
                return found
    # Counting has no branches; a partition of fresh numbers takes several times as long.
    rows_within = np.cumsum(np.bincount(distances_M, minlength=farthest + 2))
    return np.flatnonzero(distances_M <= min(int(np.searchsorted(rows_within, count)), farthest))


class _ScoredCodes(ABC):
    """Codes with approximate inner products."""

    parallel = False

    @abstractmethod
    def scores(self, query_D: Vectors) -> Vectors:
        """Return approximate scores, float32[M]."""

    def nearest(self, query_D: Vectors, count: int, mask_M: NDArray[np.bool_] | None) -> Rows:
        scores_M = self.scores(query_D)
        if mask_M is not None:
            scores_M[~mask_M] = -np.inf
        if count >= len(scores_M):
            return np.flatnonzero(scores_M > -np.inf)
        least = np.partition(scores_M, len(scores_M) - count)[len(scores_M) - count]
        return np.flatnonzero((scores_M >= least) & (scores_M > -np.inf))


class _Int8Codes(_ScoredCodes):
    def __init__(self, codes_MD: NDArray[np.int8], scales_M: Vectors) -> None:
        self.codes_MD, self.scales_M = codes_MD, scales_M

    def scores(self, query_D: Vectors) -> Vectors:
        blocks = [
            self.codes_MD[start : start + 2048].astype(np.float32) @ query_D
            for start in range(0, len(self.codes_MD), 2048)
        ]
        return np.concatenate(blocks) * self.scales_M if blocks else np.empty(0, np.float32)


class _PrefixCodes(_ScoredCodes):
    def __init__(self, prefix_ME: Vectors, axes_DE: Vectors) -> None:
        self.prefix_ME, self.axes_DE = prefix_ME, axes_DE

    def scores(self, query_D: Vectors) -> Vectors:
        return np.asarray(self.prefix_ME @ (query_D @ self.axes_DE), dtype=np.float32)


def _blocks(vectors_MD: Vectors) -> Iterator[tuple[int, Vectors]]:
    for start in range(0, len(vectors_MD), BLOCK):
        yield start, np.asarray(vectors_MD[start : start + BLOCK], dtype=np.float32)


def _mean(vectors_MD: Vectors) -> Vectors:
    dimension = vectors_MD.shape[1]
    sums_D = sum((block.sum(axis=0, dtype=np.float64) for _, block in _blocks(vectors_MD)), np.zeros(dimension))
    return np.asarray(sums_D / max(len(vectors_MD), 1), dtype=np.float32)


def _mixing(width: int) -> Vectors:
    """Return orthogonal random rows, float32[E, B], the same each time."""
    bits = 64 * (COARSE_WORDS + FINE_WORDS)
    random_BB = np.random.default_rng(0).standard_normal((max(bits, width), bits))
    return np.ascontiguousarray(np.linalg.qr(random_BB)[0][:width], dtype=np.float32)


def _leading_axes(dimension: int) -> Vectors:
    """Return the matrix [D, E] that keeps the leading dimensions."""
    return np.eye(dimension, _width(dimension), dtype=np.float32)


def _principal_axes(vectors_MD: Vectors, width: int | None = None) -> Vectors:
    """Return the directions of largest second moment, float32[D, E], from rows spread over all."""
    sample_SD = np.asarray(_spread(vectors_MD), dtype=np.float64)
    _, axes_DD = np.linalg.eigh(sample_SD.T @ sample_SD)
    return np.ascontiguousarray(axes_DD[:, ::-1][:, : width or _width(vectors_MD.shape[1])], dtype=np.float32)


def _spread(vectors_MD: Vectors) -> Vectors:
    """Return at most `SAMPLED` rows, spread over all."""
    return vectors_MD[:: max(1, len(vectors_MD) // SAMPLED)][:SAMPLED]


def _width(dimension: int) -> int:
    """Return E: a fifth of the dimensions, at least 64 (or all)."""
    return min(dimension, max(64, dimension // 5))
