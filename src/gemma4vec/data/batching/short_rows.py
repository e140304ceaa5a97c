"""Leave out the few rows that have fewer hard negatives than a batch takes of each."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gemma4vec.data.batching.mixture import MixedRows
from gemma4vec.data.rows.lazy_rows import LazyRows, NameKind, RowHashes, RowNames, as_lazy_rows
from gemma4vec.data.rows.rows import Row

# Largest share of a source's rows that is left out. Above it the data is of another kind than the recipe expects, and
# `batches.check_rows` refuses it.
MOST_LEFT_OUT = 0.1


class SelectedRows(LazyRows):
    """Some rows of others, each once or several times.

    Attributes:
        rows: the others.
        places_R: index of each row among them: `int64[R]`.
    """

    def __init__(self, rows: LazyRows, places_R: NDArray[np.int64]):
        self.rows, self.places_R, self.size = rows, places_R, len(places_R)
        self.on_disk, self.tokenized = rows.on_disk, rows.tokenized

    def row(self, number: int) -> Row:
        return self.rows[int(self.places_R[number])]

    def positive_counts(self) -> NDArray[np.int64]:
        return self.rows.positive_counts()[self.places_R]

    def negative_counts(self) -> NDArray[np.int64]:
        return self.rows.negative_counts()[self.places_R]

    def has_scores(self) -> NDArray[np.bool_]:
        return self.rows.has_scores()[self.places_R]

    def names(self, kind: NameKind) -> RowNames:
        numbers, names = self.rows.names(kind)
        used, numbers_R = np.unique(np.append(numbers[self.places_R], -1), return_inverse=True)
        return RowNames(numbers_R[:-1] - 1, [names[number] for number in used[1:]])

    def text_hashes(self) -> RowHashes:
        hashes_T, starts = self.rows.text_hashes()
        first_R, texts_R = starts[:-1][self.places_R], np.diff(starts)[self.places_R]
        ends_R = np.cumsum(np.append(0, texts_R))
        within_T = np.arange(ends_R[-1]) - np.repeat(ends_R[:-1], texts_R)
        return RowHashes(hashes_T[np.repeat(first_R, texts_R) + within_T], ends_R)


def leave_out_short_rows(rows: MixedRows, hard_negatives: int) -> tuple[MixedRows, dict[str, int]]:
    """The rows with at least `hard_negatives` negatives, and source -> number of rows left out.

    A source that would lose more than `MOST_LEFT_OUT` of its rows keeps them all.
    """
    parts, left_out = [], {}
    for part in rows.parts:
        lazy = as_lazy_rows(part.rows)
        enough_R = lazy.negative_counts() >= hard_negatives if hard_negatives else np.ones(len(lazy), np.bool_)
        fewer = int(len(lazy) - enough_R.sum())
        if not 0 < fewer <= MOST_LEFT_OUT * len(lazy):
            parts.append(part)
            continue
        parts.append(replace(part, rows=SelectedRows(lazy, np.flatnonzero(enough_R))))
        left_out[part.name] = fewer
    return (MixedRows(parts, rows.one_source_batches, rows.one_task_batches) if left_out else rows), left_out
