"""Rows of a decoder next to the encoder states of the same documents.

The encoder's documents are packed by themselves (`model.packing`), because a document's two sides differ in length: few
tokens are hidden, or most. Here documents share a row if both sides fit, so that a decoder's row and the encoder states
that it attends to are both nearly full.

Shapes: N documents, R rows, C columns of the decoder, E columns of encoder states, T states of the encoder.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gemma4vec.machine.device import to_device
from gemma4vec.model.backbone.architectures import Reach
from gemma4vec.model.backbone.masks import attention_mask
from gemma4vec.model.packing.packed_batch import PackedBatch, Tokens, lay_out

# Widths are multiples of it: a GPU's fused attention needs mask rows that start at multiples of 16 bytes, 8 keys.
_WIDTH_STEP = 8


@dataclass(frozen=True)
class DecoderLayout:
    """One rectangle of a decoder's tokens, and the encoder states that each of its rows attends to.

    Attributes:
        tokens: what the decoder reads.
        states_RE: place of each encoder state among the T states of the batch; 0 in padding cells.
        segments_RE: number of its document in the row, as `PackedBatch.segments_RC`; -1 in padding cells.
    """

    tokens: PackedBatch
    states_RE: Tensor
    segments_RE: Tensor

    @property
    def compilable(self) -> bool:
        """Whether compiled layers accept it."""
        return self.tokens.compilable

    @property
    def all_tokens(self) -> int:
        """Number of cells of the decoder's rectangle, padding included."""
        return self.tokens.all_tokens

    def to(self, device: torch.device | str) -> "DecoderLayout":
        """The same layout on another device, without a sync."""
        return replace(
            self,
            tokens=self.tokens.to(device),
            states_RE=to_device(self.states_RE, device),
            segments_RE=to_device(self.segments_RE, device),
        )

    def mask(self, reach: Reach | None) -> Tensor:
        """Boolean mask `[R, 1, C, C + E]`: own tokens before a cell, and all encoder states of its document.

        Args:
            reach: what a cell sees of its own row in a layer with a sliding window; None: no window.
        """
        tokens = self.tokens
        own_R1CC = attention_mask(tokens.positions_RC, tokens.segments_RC, causal=True, reach=reach)
        same_RCE = tokens.segments_RC[:, :, None] == self.segments_RE[:, None, :]
        seen_RCE = same_RCE & (tokens.segments_RC >= 0)[:, :, None]
        return torch.cat([own_R1CC, seen_RCE[:, None]], dim=3)


def lay_out_decoder(
    documents: Sequence[Tokens],
    encoded: Sequence[tuple[int, int]],
    *,
    row_tokens: int,
    tokens_per_forward: int,
    padding_id: int,
    packed: bool = True,
) -> list[DecoderLayout]:
    """Micro-batches of a decoder.

    Args:
        documents: what the decoder reads of each document.
        encoded: (place of the first state, number of states) of each document among the encoder's states.
        row_tokens: tokens of a row, on each side; more where one document has more.
        tokens_per_forward: cells of a micro-batch at most, on either side (or one row).
        padding_id: token of padding cells.
        packed: several documents a row; else one.
    """
    own, other = [tokens.length for tokens in documents], [count for _, count in encoded]
    room = max([row_tokens, *own, *other])
    rows = fit_pairs(own, other, room) if packed else [[n] for n in range(len(documents))]
    # Rows of similar width share a rectangle.
    rows.sort(key=lambda row: (-sum(own[n] for n in row), row))
    layouts = []
    for part in _cut(rows, own, other, tokens_per_forward):
        columns = _round_up(max(sum(own[n] for n in row) for row in part))
        tokens = lay_out(documents, part, columns, padding_id)
        states, segments = _place_states([[encoded[n] for n in row] for row in part])
        layouts.append(DecoderLayout(tokens, torch.from_numpy(states), torch.from_numpy(segments)))
    return layouts


def fit_pairs(own: Sequence[int], other: Sequence[int], room: int) -> list[list[int]]:
    """Put documents of two lengths each into rows where both sums are at most `room`.

    Documents with the longest side first, each into the row that it leaves the least room in.
    """
    rows: list[list[int]] = []
    free = np.empty((0, 2), dtype=np.int64)
    for document in sorted(range(len(own)), key=lambda n: (-max(own[n], other[n]), n)):
        left = free - [own[document], other[document]]
        fitting = np.flatnonzero((left >= 0).all(axis=1))
        if len(fitting):
            row = int(fitting[left[fitting].sum(axis=1).argmin()])
            rows[row].append(document)
            free[row] = left[row]
        else:
            rows.append([document])
            free = np.concatenate([free, [[room - own[document], room - other[document]]]])
    return rows


def _cut(rows: Sequence[list[int]], own: Sequence[int], other: Sequence[int], most: int) -> list[list[list[int]]]:
    """Micro-batches of nearly equal height, so that none is too small to be fast."""
    width = max((sum(side[n] for n in row) for row in rows for side in (own, other)), default=1)
    count = -(-len(rows) // max(1, most // _round_up(width)))
    return [list(rows[i * len(rows) // count : (i + 1) * len(rows) // count]) for i in range(count)]


def _place_states(rows: Sequence[Sequence[tuple[int, int]]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(`states_RE`, `segments_RE`) of rows, each a list of (first state, number of states)."""
    columns = _round_up(max(sum(count for _, count in row) for row in rows))
    states = np.zeros((len(rows), columns), dtype=np.int64)
    segments = np.full((len(rows), columns), -1, dtype=np.int64)
    for r, row in enumerate(rows):
        at = 0
        for segment, (first, count) in enumerate(row):
            states[r, at : at + count] = np.arange(first, first + count)
            segments[r, at : at + count] = segment
            at += count
    return states, segments


def _round_up(length: int) -> int:
    return -(-length // _WIDTH_STEP) * _WIDTH_STEP
