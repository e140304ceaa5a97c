"""Batches of plain texts, for tasks that predict tokens; and texts that are kept from training."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemma4vec.errors import InputError

# Largest share of the texts that is kept from training.
_MOST_HELD_OUT = 0.1


@dataclass(frozen=True)
class TextBatch:
    """The texts of a batch."""

    texts: list[str]
    epoch: int


@dataclass(frozen=True)
class DrawnTexts:
    """The texts of a batch, the seed of what is drawn for them, and their numbers among all texts."""

    batch: TextBatch
    seed: tuple[int, ...]
    numbers: tuple[int, ...] = ()


def draw_texts(texts: Sequence[str], rows: int, seed: int, start: int = 0) -> Iterator[DrawnTexts]:
    """The texts of endless batches of `rows` texts from number `start` on, each epoch in another order.

    Raises:
        InputError: fewer texts than a batch has.
    """
    per_epoch = len(texts) // rows
    if per_epoch == 0:
        raise InputError(f"batch.rows: {rows} texts asked for, the data has {len(texts)}")
    epoch_shown, order = -1, np.empty(0, dtype=np.int64)
    for number in count(start):
        epoch, within = divmod(number, per_epoch)
        if epoch != epoch_shown:
            order = np.random.default_rng([seed, epoch]).permutation(len(texts))
            epoch_shown = epoch
        chosen = order[within * rows : (within + 1) * rows]
        numbers = tuple(chosen.tolist())
        yield DrawnTexts(TextBatch([texts[i] for i in numbers], epoch), (seed, epoch, within), numbers)


def hold_out(texts: Sequence[str], wanted: int) -> tuple[Sequence[str], Sequence[str]]:
    """(texts to train on, texts that are held out): `wanted` of them, at most a tenth.

    The choice depends on the number of texts alone, so that runs with other seeds are measured on the same texts.
    """
    kept = min(wanted, int(_MOST_HELD_OUT * len(texts)))
    if not kept:
        return texts, []
    order = np.random.default_rng(len(texts)).permutation(len(texts))
    return _ChosenTexts(texts, np.sort(order[kept:])), _ChosenTexts(texts, np.sort(order[:kept]))


class _ChosenTexts(Sequence[str]):
    """Some of a sequence's texts, which stay where they are: on disk, if the data is."""

    def __init__(self, texts: Sequence[str], numbers: NDArray[np.int64]):
        self._texts, self._numbers = texts, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self._texts[i] for i in self._numbers[index].tolist()]
        return self._texts[int(self._numbers[index])]
