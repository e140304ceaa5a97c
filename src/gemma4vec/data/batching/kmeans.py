"""Clusters of vectors: k-means on a sample, then every vector to its nearest center, block by block.

Shapes: R vectors, D dimensions, k clusters.
"""

import warnings

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2

Vectors = NDArray[np.floating]

# Vectors that centers are computed from. With the most clusters, k-means takes about a gigabyte for them.
SAMPLE = 2**16
MOST = 4096
BLOCK = 4096
_ITERATIONS = 20


def cluster_vectors(vectors_RD: Vectors, count: int, *, smallest: int, seed: int) -> NDArray[np.int32]:
    """The cluster of each vector, `int32[R]`; clusters are numbered so that neighboring numbers are near.

    A cluster with fewer than `smallest` vectors joins the one whose center is nearest, so there may be fewer than
    `count`. The result depends on the vectors and the seed alone.

    Args:
        vectors_RD: unit vectors in any precision; they may be on disk, since they are read in blocks.
        count: number of clusters, at most `MOST`.
        smallest: smallest number of vectors in a cluster.
        seed: of the sample and of the first centers.
    """
    count = min(count, len(vectors_RD) // max(1, smallest))
    if count < 2:
        return np.zeros(len(vectors_RD), dtype=np.int32)
    centers_kD = find_centers(vectors_RD, count, seed)
    labels_R = nearest_centers(vectors_RD, centers_kD)
    sizes_k = np.bincount(labels_R, minlength=count)
    merged_k, centers_kD = merge_small(centers_kD, sizes_k, smallest)
    numbers = np.empty(len(centers_kD), dtype=np.int32)
    numbers[chain_of_near(centers_kD)] = np.arange(len(centers_kD))
    return numbers[merged_k[labels_R]]


def find_centers(vectors_RD: Vectors, count: int, seed: int) -> NDArray[np.float32]:
    """`float32[k, D]` by Lloyd's k-means (scipy's) on at most `SAMPLE` vectors; the first centers are random ones."""
    generator = np.random.default_rng(seed)
    size = min(len(vectors_RD), SAMPLE)
    chosen = np.sort(generator.choice(len(vectors_RD), size, replace=False))
    sample_SD = np.asarray(vectors_RD[chosen], dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an empty cluster: `merge_small` drops it
        centers_kD, _ = kmeans2(sample_SD, count, iter=_ITERATIONS, minit="points", seed=generator)
    return np.asarray(centers_kD, dtype=np.float32)


def nearest_centers(vectors_RD: Vectors, centers_kD: NDArray[np.float32]) -> NDArray[np.int32]:
    """The center at the smallest Euclidean distance from each vector: `int32[R]`."""
    labels_R = np.empty(len(vectors_RD), dtype=np.int32)
    half_k = (centers_kD**2).sum(axis=1) / 2
    for start in range(0, len(vectors_RD), BLOCK):
        block_BD = np.asarray(vectors_RD[start : start + BLOCK], dtype=np.float32)
        labels_R[start : start + BLOCK] = (block_BD @ centers_kD.T - half_k).argmax(axis=1)
    return labels_R


def merge_small(
    centers_kD: NDArray[np.float32], sizes_k: NDArray[np.int64], smallest: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(new number of each cluster, centers that remain): the smallest cluster joins its nearest until all are large
    enough. Empty clusters are dropped in the same way.
    """
    centers, sizes = centers_kD.astype(np.float32).copy(), sizes_k.astype(np.int64).copy()
    joined = np.arange(len(centers))
    alive = np.ones(len(centers), dtype=np.bool_)
    while alive.sum() > 1:
        one = int(np.where(alive, sizes, np.iinfo(np.int64).max).argmin())
        if sizes[one] >= smallest:
            break
        distances = ((centers - centers[one]) ** 2).sum(axis=1)
        distances[~alive] = np.inf
        distances[one] = np.inf
        other = int(distances.argmin())
        total = max(1, sizes[one] + sizes[other])
        centers[other] = (sizes[one] * centers[one] + sizes[other] * centers[other]) / total
        sizes[other] += sizes[one]
        alive[one] = False
        joined[joined == one] = other
    kept = np.flatnonzero(alive)
    return np.searchsorted(kept, joined), centers[kept]


def chain_of_near(centers_kD: NDArray[np.float32]) -> NDArray[np.int64]:
    """The centers in an order in which each is followed by the nearest of those that are left; from number 0."""
    left = np.ones(len(centers_kD), dtype=np.bool_)
    chain = [0]
    left[0] = False
    while left.any():
        distances = ((centers_kD - centers_kD[chain[-1]]) ** 2).sum(axis=1)
        chain.append(int(np.where(left, distances, np.inf).argmin()))
        left[chain[-1]] = False
    return np.array(chain)
