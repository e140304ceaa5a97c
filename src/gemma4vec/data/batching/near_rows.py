"""Batches of near rows: the rows of an epoch stay the same, and runs of them come from one cluster.

The order is the one without clusters (`data.batching.epoch_order`), so that a training with clusters and one without
see the same rows. Within a *window* of batches, rows change places until each run of `group_rows` places has rows of
one cluster. What is left of each cluster, fewer rows than a run, fills runs together with what is left of the next
cluster; clusters are numbered so that the next one is near (`data.batching.kmeans`).

Shapes: R rows, E places of an epoch, N places of a window.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gemma4vec.data.batching.epoch_order import Epoch, epoch_order
from gemma4vec.data.rows.rows import Row

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ClusterWindow:
    """The batches from number `first` to before `stop`, and the clusters of the rows in them.

    Attributes:
        first: number of the first batch.
        stop: number of the batch after the last one; None: no end.
        labels_R: cluster of each row, -1 for a row that is not in the window: `int32[R]`.
        group_rows: number of consecutive rows that come from one cluster.
    """

    first: int
    stop: int | None
    labels_R: NDArray[np.int32]
    group_rows: int

    def places(self, epoch: int, per_epoch: int, size: int) -> slice:
        """The places of an epoch of `per_epoch` batches of `size` rows that belong to the window."""
        before = epoch * per_epoch
        begin = min(max(self.first - before, 0), per_epoch)
        end = per_epoch if self.stop is None else min(max(self.stop - before, begin), per_epoch)
        return slice(begin * size, end * size)

    def arrange(self, order: Epoch, units_R: NDArray[np.int32], generator: np.random.Generator) -> Epoch:
        """The same rows, those of one cluster in runs; a place keeps its unit.

        A unit is a set of rows that one batch may be filled from (`data.batching.spread_duplicates.units_of_rows`).
        """
        rows, passes = order.rows.copy(), order.passes.copy()
        units_N = units_R[order.rows]
        for unit in np.unique(units_N).tolist():
            places = np.flatnonzero(units_N == unit)
            turn = places[
                order_by_cluster(self.labels_R[order.rows[places]], order.passes[places], self.group_rows, generator)
            ]
            rows[places], passes[places] = order.rows[turn], order.passes[turn]
        return Epoch(rows, passes)


def order_by_cluster(
    labels_N: NDArray[np.int32], passes_N: Ints, group_rows: int, generator: np.random.Generator
) -> Ints:
    """All numbers below N in runs of `group_rows`, each from one cluster or from the rest of neighboring ones.

    Runs are in random order, and each call draws other members; a row that comes twice, in two passes over
    a source, comes in different runs where its cluster is large enough. A shorter run is the last.
    """
    count = len(labels_N)
    ordered = np.lexsort((generator.permutation(count), passes_N, labels_N))
    _, begins, sizes = np.unique(labels_N[ordered], return_index=True, return_counts=True)
    within = np.arange(count) - np.repeat(begins, sizes)
    whole = within < np.repeat(sizes - sizes % group_rows, sizes)
    left = ordered[~whole]
    short = len(left) % group_rows
    full = np.concatenate([ordered[whole], left[: len(left) - short]]).reshape(-1, group_rows)
    return np.concatenate([full[generator.permutation(len(full))].ravel(), left[len(left) - short :]])


def reached_rows(rows: Sequence[Row], *, size: int, seed: int, first: int, stop: int | None) -> Ints:
    """The rows of batches `first` to before `stop`, ascending; all rows where there is no end."""
    if stop is None:
        return np.arange(len(rows))
    per_epoch = len(rows) // size
    seen_R = np.zeros(len(rows), dtype=np.bool_)
    for epoch in range(first // per_epoch, -(-stop // per_epoch)):
        begin, end = max(first - epoch * per_epoch, 0), min(stop - epoch * per_epoch, per_epoch)
        seen_R[epoch_order(rows, size=size, seed=seed, epoch=epoch).rows[begin * size : end * size]] = True
        if seen_R.all():
            break
    return np.flatnonzero(seen_R)
