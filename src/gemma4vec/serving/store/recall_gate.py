"""The recall gate: every build ends with a comparison of the index and exact search.

Search parameters are chosen on some queries and judged on others, so that the recall that is stored is honest. Where no
queries are given, stored vectors are the queries, each without itself in its ranking.

Shapes: N queries, D dimension, P ranks of the reference.
"""

import logging
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gemma4vec.errors import InputError
from gemma4vec.retrieval.exact import search
from gemma4vec.serving.store.product_codes import load_faiss
from gemma4vec.serving.store.rows import check_vectors, vectors_of
from gemma4vec.serving.store.search_store import search_with
from gemma4vec.serving.store.store_meta import Gate, Parameters
from gemma4vec.serving.store.vector_store import INDEX_CHOICES, Progress, VectorStore

logger = logging.getLogger(__name__)

TARGET = 0.98
K = 10
HELD_OUT = 200
SURPLUS = 0.004  # above the target on the tuning queries, so that chance seldom leaves held-out ones below it
POOL = 40  # ranks of the reference below k: rows that tie with rank k count as found
TIE = 1e-6

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class _Reference:
    """Exact rankings: for each query the ids that count as found, and how many there should be."""

    queries_ND: Vectors
    own_ids: list[str] | None
    accepted: list[set[str]]
    wanted: list[int]


def build_and_check(
    store: VectorStore,
    index: str = "auto",
    queries_ND: Vectors | None = None,
    *,
    k: int = K,
    target: float = TARGET,
    held_out: int = HELD_OUT,
    progress: Progress = lambda done, total: None,
) -> Gate | None:
    """Build the store's index, choose its search parameters, and store the recall on held-out queries.

    Args:
        store: all rows are added.
        index: "auto", "exact" or one of `store.indexes`.
        queries_ND: unit vectors of real queries; half of them (at most `held_out`) judge, as many others choose the
            parameters. With fewer than 20, or None, stored vectors are the queries.
        k: length of the rankings.
        target: recall to reach.
        held_out: number of queries that judge.
        progress: rows indexed, rows in all.

    Returns:
        The gate's result; None for a store without rows. Below the target it is also a warning in the log.

    Raises:
        InputError: as `check_index`, or queries that are not unit vectors.
    """
    check_index(store, index)
    if queries_ND is not None:
        check_vectors(queries_ND, store.meta.dimension, [f"query {row + 1}" for row in range(len(queries_ND))])
    for kind in store.preferred() if index == "auto" else (index,):
        built = store.build(kind, progress)
        store.describe(store.meta.indexed(built, None))
        if not store.count():
            return None
        gate = measure(store, queries_ND, k=k, target=target, held_out=held_out)
        store.describe(store.meta.indexed(built, gate))
        if gate.passed:
            break
        logger.info(f"{store.location}: index {built}: {gate.line()}")
    (logger.info if gate.passed else logger.warning)(f"{store.location}: {gate.line()}")
    return gate


def check_index(store: VectorStore, index: str) -> None:
    """Check that the store can build an index, before long work.

    Raises:
        InputError: an index that the store does not have, or one whose package is not installed.
    """
    if index not in (*INDEX_CHOICES, *store.indexes):
        raise InputError(f"{store.location} has no index {index!r}; use {', '.join((*INDEX_CHOICES, *store.indexes))}")
    if index == "pq":
        load_faiss()


def measure(store: VectorStore, queries_ND: Vectors | None, *, k: int, target: float, held_out: int) -> Gate:
    """Choose search parameters for the index that was built, and measure recall on held-out queries."""
    own_ids = None
    if queries_ND is None or len(queries_ND) < 20:
        source = "documents"
        own_ids, queries_ND = _sample_documents(store, 2 * held_out)
    else:
        source = "queries"
    half = min(held_out, max(len(queries_ND) // 2, 1))
    # Alternate rows, since files of queries are often sorted.
    judging, tuning = np.arange(len(queries_ND))[::2][:half], np.arange(len(queries_ND))[1::2][:half]
    both = np.concatenate([judging, tuning])
    reference = _search_exactly(store, queries_ND[both], None if own_ids is None else [own_ids[i] for i in both], k)
    chosen: Parameters | None = None
    for parameters in store.ladder():
        chosen = parameters
        if not len(tuning) or _recall(store, reference, slice(half, None), k, parameters) >= min(target + SURPLUS, 1.0):
            break
    recall = _recall(store, reference, slice(0, half), k, chosen)
    return Gate(recall, target, k, half, len(tuning), source, dict(chosen or {}))


def _recall(store: VectorStore, reference: _Reference, which: slice, k: int, parameters: Parameters | None) -> float:
    """Return the mean share of each query's exact top k that the store finds."""
    own_ids = None if reference.own_ids is None else reference.own_ids[which]
    results = search_with(store, reference.queries_ND[which], k + (own_ids is not None), None, parameters)
    shares = []
    for row, (found, accepted, wanted) in enumerate(
        zip(results, reference.accepted[which], reference.wanted[which], strict=True)
    ):
        ids = [one.id for one in found if own_ids is None or one.id != own_ids[row]][:k]
        if wanted:
            shares.append(min(len(accepted.intersection(ids)), wanted) / wanted)
    return float(np.mean(shares)) if shares else 1.0


def _sample_documents(store: VectorStore, count: int) -> tuple[list[str], Vectors]:
    """Return ids and vectors of `count` rows, the same in every store: those with the lowest hashes of their ids."""
    keys, ids, vectors = np.empty(0, np.int64), np.empty(0, object), np.empty((0, store.meta.dimension), np.float32)
    for batch in store.scan():
        new = batch.column("id").to_pylist()
        keys = np.concatenate([keys, [zlib.crc32(identity.encode()) for identity in new]])
        ids = np.concatenate([ids, np.array(new, object)])
        best = np.lexsort((ids, keys))[:count] if len(keys) <= count else _lowest(keys, ids, count)
        old = len(vectors)
        pool = np.concatenate([vectors, vectors_of(batch)[best[best >= old] - old]])
        place = np.where(best < old, best, 0)
        place[best >= old] = old + np.arange(int((best >= old).sum()))
        keys, ids, vectors = keys[best], ids[best], pool[place]
    return list(ids), vectors


def _lowest(keys: NDArray[np.int64], ids: NDArray[np.object_], count: int) -> NDArray[np.intp]:
    """Return positions of the `count` lowest (key, id)."""
    near = np.flatnonzero(keys <= np.partition(keys, count - 1)[count - 1])
    return near[np.lexsort((ids[near], keys[near]))[:count]]


def _search_exactly(store: VectorStore, queries_ND: Vectors, own_ids: list[str] | None, k: int) -> _Reference:
    """Rank all rows by our own exact search, a block of the store at a time."""
    ranks = k + POOL + (own_ids is not None)
    scores_NP = np.empty((len(queries_ND), 0), np.float32)
    ids_NP = np.empty((len(queries_ND), 0), object)
    for batch in store.scan(65_536):
        found = search(queries_ND, vectors_of(batch), min(ranks, batch.num_rows))
        ids = np.array(batch.column("id").to_pylist(), object)
        scores_NP = np.concatenate([scores_NP, found.scores], axis=1)
        ids_NP = np.concatenate([ids_NP, ids[found.indices]], axis=1)
        order = np.argsort(-scores_NP, axis=1, kind="stable")[:, :ranks]
        scores_NP, ids_NP = np.take_along_axis(scores_NP, order, 1), np.take_along_axis(ids_NP, order, 1)
    accepted, wanted = [], []
    for row, (scores_P, ids_P) in enumerate(zip(scores_NP, ids_NP, strict=True)):
        others = np.ones(len(ids_P), bool) if own_ids is None else ids_P != own_ids[row]
        scores_P, ids_P = scores_P[others], ids_P[others]
        wanted.append(min(k, len(ids_P)))
        accepted.append(set(ids_P[scores_P >= scores_P[wanted[-1] - 1] - TIE]) if wanted[-1] else set())
    return _Reference(queries_ND, own_ids, accepted, wanted)
