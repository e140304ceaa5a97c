"""What a window's first batches have that a contrast may take for negatives: equal texts, and nearly equal rows.

Shapes: n rows of a window, N rows of a batch, D dimensions.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemma4vec.data.batching.batches import numbered_batches
from gemma4vec.data.batching.near_rows import ClusterWindow
from gemma4vec.data.rows.rows import Row
from gemma4vec.recipe import schema
from gemma4vec.text.text_hash import text_key

# Rows that are looked at, and the similarity from which two are called nearly equal.
SEEN, NEAR = 2048, 0.9
# Shares of rows from which a setting is recommended.
_MANY_EQUAL, _MANY_NEAR = 0.02, 0.02


@dataclass(frozen=True)
class Neighbors:
    """Shares of the rows of the first batches, and mean similarities by the vectors that were clustered.

    Attributes:
        checked: number of rows that were looked at.
        same_text: share of rows whose query or positive is also that of another row in their batch.
        near: share of the others that are as similar as `NEAR` or more to another row of their batch.
        within: mean similarity of two rows of a batch from one cluster; None: there are none.
        between: from two clusters.
    """

    checked: int
    same_text: float
    near: float
    within: float | None
    between: float | None

    def as_json(self) -> dict[str, Any]:
        """Fields of the event."""
        return asdict(self)

    def sentence(self) -> str:
        """For people."""
        alike = (
            f"two rows of a batch are {_number(self.within)} alike within a cluster, {_number(self.between)} otherwise"
        )
        return (
            f"{alike}; of the first {self.checked:,} rows {self.same_text:.1%} share a text with another of their "
            f"batch, {self.near:.1%} have one at {NEAR} or nearer"
        )

    def advice(self, stage: schema.Stage) -> list[str]:
        """What to set, where batches have many rows that are no negatives and nothing is set against them."""
        terms = stage.task.terms if isinstance(stage.task, schema.Contrast) else ()
        found = []
        if self.same_text >= _MANY_EQUAL and not stage.batch.no_duplicates:
            found.append(f"{self.same_text:.1%} of rows share a text with another of their batch: set no_duplicates")
        margins = [getattr(term, "false_negative_margin", None) for term in terms if term.kind == "nce"]
        if self.near >= _MANY_NEAR and margins and None in margins:
            found.append(
                f"{self.near:.1%} of rows have a nearly equal one in their batch, which may be right for them: set "
                "task.terms.*.false_negative_margin, such as 0.1"
            )
        return found


def find_neighbors(
    rows: Sequence[Row],
    window: ClusterWindow,
    vectors_nD: NDArray[np.floating],
    numbers_n: NDArray[np.int64],
    batch: schema.Batch,
    seed: int,
) -> Neighbors:
    """Look at the first batches of a window, as many as have `SEEN` rows.

    Args:
        rows: all rows.
        window: their clusters.
        vectors_nD: unit vectors of the window's rows.
        numbers_n: their numbers, ascending.
        batch: the stage's.
        seed: of the rows' order.
    """
    count = max(1, SEEN // batch.rows)
    if window.stop is not None:
        count = min(count, window.stop - window.first)
    drawn = numbered_batches(
        rows, size=batch.rows, seed=seed, start=window.first, no_duplicates=batch.no_duplicates, near=window
    )
    checked = equal = near = 0
    within, between = _Mean(), _Mean()
    for numbers, _, _ in islice(drawn, count):
        same_NN = _same_text([rows[number] for number in numbers])
        own_ND = np.asarray(vectors_nD[np.searchsorted(numbers_n, numbers)], dtype=np.float32)
        alike_NN = own_ND @ own_ND.T
        labels_N = window.labels_R[numbers]
        one_NN = labels_N[:, None] == labels_N[None, :]
        other_NN = ~np.eye(len(numbers), dtype=np.bool_)
        equal_N = np.any(same_NN & other_NN, axis=1)
        checked += len(numbers)
        equal += int(equal_N.sum())
        near_N: NDArray[np.bool_] = np.any((alike_NN >= NEAR) & other_NN & ~same_NN, axis=1)
        near += int((near_N & ~equal_N).sum())
        within.add(alike_NN[one_NN & other_NN])
        between.add(alike_NN[~one_NN])
    return Neighbors(checked, equal / max(1, checked), near / max(1, checked), within.value, between.value)


def _same_text(rows: Sequence[Row]) -> NDArray[np.bool_]:
    """Whether two rows share their query or their first positive: `bool[N, N]`."""
    queries = np.array([text_key(row.query) for row in rows])
    positives = np.array([text_key(row.pos[0]) for row in rows])
    same: NDArray[np.bool_] = (queries[:, None] == queries[None, :]) | (positives[:, None] == positives[None, :])
    return same


class _Mean:
    """The mean of numbers that come in portions."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def add(self, values: NDArray[np.floating]) -> None:
        self.total += float(values.sum())
        self.count += values.size

    @property
    def value(self) -> float | None:
        return self.total / self.count if self.count else None


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
