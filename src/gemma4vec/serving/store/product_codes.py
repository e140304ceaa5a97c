"""Codes of product quantization ("pq"), searched by faiss's fast scan (Jegou et al. 2011; Andre et al. 2017).

The principal directions of the vectors are rotated at random, so that all carry like variance, and cut into pairs; each
pair is rounded to one of 16 centroids. A query's inner products with the centroids stand in registers of the processor,
so that a few instructions score 32 rows. One byte a direction then orders the best of these.

Our files hold plain arrays: axes, centroids, four bits for each pair, bytes and their scales. faiss makes its index of
them in memory, and never reads a file.

Shapes: M rows, D dimensions, E directions, P = E / 2 pairs, C candidates.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemma4vec.errors import InputError

Vectors = NDArray[np.float32]
Rows = NDArray[np.int64]
CENTROIDS = 16  # four bits, which is what the fast scan takes
TIMES = 8  # rows that the scan chooses for each row that is returned
LEAST_WIDTH, MOST_WIDTH = 128, 256
INSTALL = 'pip install "gemma4vec[faiss]"'


def load_faiss() -> ModuleType:
    """Import faiss.

    Raises:
        InputError: it is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise InputError(f"index pq needs faiss, which is not installed; {INSTALL}, or use pca_binary") from error
    return faiss


def has_faiss() -> bool:
    """Return whether faiss can be imported."""
    try:
        load_faiss()
    except InputError:
        return False
    return True


def product_width(dimension: int) -> int:
    """Return E: a fifth of the dimensions, between 128 and 256 (or all), a multiple of four."""
    return min(dimension, MOST_WIDTH, max(LEAST_WIDTH, dimension // 5)) // 4 * 4


def rotate(axes_DE: Vectors) -> Vectors:
    """Return the axes turned by one random rotation: pairs of like variance need equally many bits."""
    width = axes_DE.shape[1]
    random_EE = np.random.default_rng(0).standard_normal((width, width))
    return np.ascontiguousarray(axes_DE @ np.linalg.qr(random_EE)[0].astype(np.float32))


def make_product_codes(
    axes_DE: Vectors, sample_SD: Vectors, blocks: Iterable[tuple[int, Vectors]], count: int
) -> dict[str, np.ndarray]:
    """Return the arrays of `ProductCodes`.

    Args:
        axes_DE: principal directions.
        sample_SD: rows from which centroids and scales are learned.
        blocks: all rows, some at a time, with the place of the first.
        count: M.

    Raises:
        InputError: faiss is not installed.
    """
    axes_DE = rotate(axes_DE)
    sample_SE = sample_SD @ axes_DE
    quantizer = _ProductQuantizer(sample_SE)
    scales_E = np.maximum(np.abs(sample_SE).max(axis=0), np.float32(1e-12)) / 127
    width = axes_DE.shape[1]
    codes_MB, fine_ME = np.empty((count, width // 4), np.uint8), np.empty((count, width), np.int8)
    for start, block_BD in blocks:
        block_BE = block_BD @ axes_DE
        codes_MB[start : start + len(block_BE)] = quantizer.encode(block_BE)
        fine_ME[start : start + len(block_BE)] = np.clip(np.rint(block_BE / scales_E), -127, 127)
    centroids = quantizer.centroids
    return {"codes": codes_MB, "fine": fine_ME, "centroids": centroids, "axes": axes_DE, "scales": scales_E}


def product_shapes(count: int, dimension: int) -> dict[str, tuple[tuple[int, ...], type]]:
    """Return shape and type of each array for M = `count` rows of `dimension`."""
    width = product_width(dimension)
    return {
        "codes": ((count, width // 4), np.uint8),
        "fine": ((count, width), np.int8),
        "centroids": ((width // 2, CENTROIDS, 2), np.float32),
        "axes": ((dimension, width), np.float32),
        "scales": ((width,), np.float32),
    }


class _ProductQuantizer:
    """Centroids of pairs, learned from some rows; the same rows give the same bytes."""

    def __init__(self, sample_SE: Vectors) -> None:
        """Learn the centroids from S rows; fewer than 16 are repeated."""
        self._faiss = load_faiss()
        self._pairs = sample_SE.shape[1] // 2
        self._quantizer = self._faiss.ProductQuantizer(sample_SE.shape[1], self._pairs, 4)
        self._quantizer.cp.min_points_per_centroid = 1  # or it warns about few rows
        if len(sample_SE) < CENTROIDS:
            sample_SE = np.resize(sample_SE, (CENTROIDS, sample_SE.shape[1]))
        with _one_thread(self._faiss):
            self._quantizer.train(np.ascontiguousarray(sample_SE, dtype=np.float32))

    @property
    def centroids(self) -> Vectors:
        """float32[P, 16, 2]."""
        flat = self._faiss.vector_to_array(self._quantizer.centroids)
        return np.asarray(flat, dtype=np.float32).reshape(self._pairs, CENTROIDS, 2)

    def encode(self, rows_RE: Vectors) -> NDArray[np.uint8]:
        """Return uint8[R, E / 4]: two pairs a byte."""
        with _one_thread(self._faiss):
            found = self._quantizer.compute_codes(np.ascontiguousarray(rows_RE, dtype=np.float32))
        return np.asarray(found, dtype=np.uint8)


class ProductCodes:
    """Codes of M rows: four bits a pair choose many rows, then a byte a direction few of these. See `codes.Codes`."""

    parallel = True  # faiss searches for one query on one thread, without Python's lock

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        """Make faiss's index in memory of the arrays that `make_product_codes` returned.

        Raises:
            ValueError: a number is not finite.
            InputError: faiss is not installed.
        """
        if not all(np.isfinite(arrays[name]).all() for name in ("centroids", "axes", "scales")):
            raise ValueError("codes `pq` have numbers that are not finite")
        self._faiss = load_faiss()
        self._codes_MB: NDArray[np.uint8] = arrays["codes"]
        self._fine_ME: NDArray[np.int8] = arrays["fine"]
        self._centroids, self._axes_DE, self._scales_E = arrays["centroids"], arrays["axes"], arrays["scales"]
        faiss = self._faiss
        plain = faiss.IndexPQ(self._axes_DE.shape[1], len(self._centroids), 4, faiss.METRIC_INNER_PRODUCT)
        self._set_centroids(plain)
        faiss.copy_array_to_vector(self._codes_MB.reshape(-1), plain.codes)
        plain.ntotal = len(self._codes_MB)
        self._index = faiss.IndexPQFastScan(plain)
        self._index.orig_codes = None  # it copied them

    def nearest(self, query_D: Vectors, count: int, mask_M: NDArray[np.bool_] | None) -> Rows:
        """Return the `count` rows of largest approximate score; fewer where fewer match the mask."""
        matching = len(self._codes_MB) if mask_M is None else int(np.count_nonzero(mask_M))
        if count >= matching:
            return _all_rows(matching, mask_M)
        query_E = query_D @ self._axes_DE
        many = count * TIMES
        near_C = _all_rows(matching, mask_M) if many >= matching else self._scan(query_E, many, mask_M)
        scores_C = self._fine_ME[near_C].astype(np.float32) @ (query_E * self._scales_E)
        return near_C[np.argpartition(-scores_C, count - 1)[:count]]

    def _scan(self, query_E: Vectors, count: int, mask_M: NDArray[np.bool_] | None) -> Rows:
        """Return the `count` rows of largest score by four bits a pair; more than `count` match."""
        if mask_M is None:
            found_C = self._index.search(query_E[None], count)[1][0]
        else:
            bits = np.packbits(mask_M, bitorder="little")
            parameters = self._faiss.SearchParametersIVF(sel=self._faiss.IDSelectorBitmap(bits), nprobe=1)
            found_C = self._filtered.search(query_E[None], count, params=parameters)[1][0]
        if found_C[-1] < 0:  # faiss leaves out rows of the least score that its tables can give, as of equal vectors
            found_C = found_C[found_C >= 0]
            others = np.setdiff1d(_all_rows(len(self._codes_MB), mask_M), found_C)
            found_C = np.concatenate([found_C, others[: count - len(found_C)]])
        return np.asarray(found_C)

    @cached_property
    def _filtered(self) -> Any:
        """The same codes as one inverted list: the flat index takes no filter."""
        faiss, (count, width) = self._faiss, self._codes_MB.shape
        center = faiss.IndexFlatIP(self._axes_DE.shape[1])
        center.add(np.zeros((1, self._axes_DE.shape[1]), np.float32))
        plain = faiss.IndexIVFPQ(center, center.d, 1, len(self._centroids), 4, faiss.METRIC_INNER_PRODUCT)
        plain.by_residual = False
        self._set_centroids(plain)
        rows_M = np.arange(count, dtype=np.int64)
        assert width == plain.code_size
        codes_MB = np.ascontiguousarray(self._codes_MB)
        plain.invlists.add_entries(0, count, faiss.swig_ptr(rows_M), faiss.swig_ptr(codes_MB))
        plain.ntotal = count
        found = faiss.IndexIVFPQFastScan(plain)
        found.quantizer, found.own_fields = center, False
        found.referenced_objects = [center]  # Python keeps what C++ only points to
        return found

    def _set_centroids(self, index: Any) -> None:
        self._faiss.copy_array_to_vector(np.ascontiguousarray(self._centroids).reshape(-1), index.pq.centroids)
        index.is_trained = True


def _all_rows(count: int, mask_M: NDArray[np.bool_] | None) -> Rows:
    return np.arange(count) if mask_M is None else np.flatnonzero(mask_M)


@contextmanager
def _one_thread(faiss: ModuleType) -> Iterator[None]:
    """Sums in one order: the same rows give the same centroids on one kind of processor."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)
