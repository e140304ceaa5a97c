"""The texts of rows as plain texts, for masked next-token prediction."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from gemma4vec.data.batching.mixture import MixedRows
from gemma4vec.data.rows.lazy_rows import LazyRows, as_lazy_rows
from gemma4vec.data.rows.row_texts import RowTexts, TextKind
from gemma4vec.data.rows.rows import Row
from gemma4vec.text.prompts import Prompts

_PLAIN = Prompts()


def texts_of_rows(rows: Iterable[Row], which: TextKind) -> Iterator[str]:
    """The texts of rows without prompts, a document with its title in front; duplicates are included."""
    for row in rows:
        if which != "documents":
            yield row.query
        if which != "queries":
            for document in (*row.pos, *row.neg):
                yield _PLAIN.for_document(document).text


def unique_texts(plain: MixedRows, rows: MixedRows, which: TextKind) -> Sequence[str]:
    """Every text once: first the texts of `plain`, whose rows have only a query, then those of `rows`.

    If any rows are on disk, the texts stay there and take 16 bytes each in memory. Rows of tensors are never compared:
    each counts as a text of its own.
    """
    parts: list[tuple[LazyRows, TextKind]] = [(as_lazy_rows(part.rows), "queries") for part in plain.parts]
    parts += [(as_lazy_rows(part.rows), which) for part in rows.parts]
    if not any(found.on_disk for found, _ in parts):
        return list(dict.fromkeys(text for found, wanted in parts for text in texts_of_rows(found, wanted)))
    return TextsOnDisk([found.texts(wanted) for found, wanted in parts])


class TextsOnDisk(Sequence[str]):
    """The texts of several parts without duplicates."""

    def __init__(self, parts: Sequence[RowTexts]):
        self._parts = parts
        hashes = np.concatenate([part.hashes(number) for number, part in enumerate(parts)])
        self._starts = np.cumsum([0, *(len(part) for part in parts)])
        self._places = np.sort(np.unique(hashes, return_index=True)[1])

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = int(self._places[index])
        part = int(np.searchsorted(self._starts, place, side="right")) - 1
        document = self._parts[part].document(place - int(self._starts[part]))
        return _PLAIN.for_document(document).text
