"""Texts as rectangles of tokens: several documents in one row (packed) or one document a row (padded).

Shapes: R rows, C columns (tokens of a row), T real tokens of all documents, N documents.

Packing is best-fit decreasing (Johnson 1974): documents from long to short, each into the fullest row that still has
room. A document never crosses a row, so attention inside a row with a block mask is all that isolation needs.
"""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

# Widths that are tried for the last rectangle, in tokens.
_WIDTH_STEP = 8


class Tokens(NamedTuple):
    """A tokenised text.

    Attributes:
        ids: token ids.
        prompt: how many of the first ones are the prompt's (BOS included).
        mark: number of a token that the readout marked, such as the first one of the text's second copy.
        context: what a second encoder reads of the text, where the readout has one.
    """

    ids: Sequence[int]
    prompt: int = 0
    mark: int = 0
    context: str = ""

    @property
    def length(self) -> int:
        """Number of tokens, prompt and special tokens included."""
        return len(self.ids)


@dataclass(frozen=True)
class Layout:
    """One rectangle of tokens for one forward pass.

    Attributes:
        input_ids_RC: token ids; padding cells hold `padding_id`.
        positions_RC: position of each token in its own document, from 0; 0 in padding cells.
        segments_RC: number of the document in its row, from 0; -1 in padding cells.
        cells_T: flat index (row * C + column) of every real token, document after document.
        lengths_N: tokens of each document, in the order of `cells_T`.
        prompts_N: how many of them, from the first, belong to the prompt (0 where nobody asked).
        marks_N: number of the token that the readout marked, in its document (see `Tokens`).
        contexts: for each of the N documents, what a second encoder reads.
        documents: for each of the N documents, its number in the list that was laid out.
    """

    input_ids_RC: Tensor
    positions_RC: Tensor
    segments_RC: Tensor
    cells_T: Tensor
    lengths_N: Tensor
    prompts_N: Tensor
    marks_N: Tensor
    contexts: tuple[str, ...]
    documents: tuple[int, ...]

    @property
    def compilable(self) -> bool:
        """Whether compiled layers take it: they serve all heights and widths but one, which would need its own code."""
        return min(self.input_ids_RC.shape) > 1

    @property
    def real_tokens(self) -> int:
        """Tokens that belong to a document."""
        return self.cells_T.numel()

    @property
    def all_tokens(self) -> int:
        """Cells of the rectangle, padding included."""
        return self.input_ids_RC.numel()

    def to(self, device: torch.device | str) -> "Layout":
        """The same layout on another device."""
        return Layout(
            self.input_ids_RC.to(device, non_blocking=True),
            self.positions_RC.to(device, non_blocking=True),
            self.segments_RC.to(device, non_blocking=True),
            self.cells_T.to(device, non_blocking=True),
            self.lengths_N.to(device, non_blocking=True),
            self.prompts_N.to(device, non_blocking=True),
            self.marks_N.to(device, non_blocking=True),
            self.contexts,
            self.documents,
        )


def padding_share(layouts: Sequence[Layout]) -> float:
    """Share of computed cells that hold no real token."""
    cells = sum(layout.all_tokens for layout in layouts)
    return 1.0 - sum(layout.real_tokens for layout in layouts) / cells if cells else 0.0


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Put documents into rows of at most `capacity` tokens; gives the documents of each row, long ones first.

    Raises:
        ValueError: a document is longer than `capacity`.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    rows: list[list[int]] = []
    open_rows: list[tuple[int, int]] = []  # (room left, row), sorted: the first that fits is the fullest
    for document in order:
        length = lengths[document]
        if length > capacity:
            raise ValueError(f"document {document} has {length} tokens, a row holds {capacity}")
        at = bisect.bisect_left(open_rows, (length, -1))
        if at == len(open_rows):
            rows.append([document])
            room, row = capacity - length, len(rows) - 1
        else:
            room, row = open_rows.pop(at)
            rows[row].append(document)
            room -= length
        if room:
            bisect.insort(open_rows, (room, row))
    return rows


def lay_out(
    documents: Sequence[Tokens],
    rows: Sequence[Sequence[int]],
    columns: int,
    padding_id: int,
    *,
    height: int | None = None,
) -> Layout:
    """Build the rectangle for `rows` (document numbers in each row); `height` adds empty rows below."""
    shape = (height or len(rows), columns)
    input_ids = torch.full(shape, padding_id, dtype=torch.long)
    positions = torch.zeros(shape, dtype=torch.long)
    segments = torch.full(shape, -1, dtype=torch.long)
    cells: list[Tensor] = []
    lengths: list[int] = []
    order: list[int] = []
    for r, row in enumerate(rows):
        start = 0
        for segment, document in enumerate(row):
            tokens = documents[document]
            end = start + tokens.length
            input_ids[r, start:end] = torch.as_tensor(tokens.ids, dtype=torch.long)
            positions[r, start:end] = torch.arange(tokens.length)
            segments[r, start:end] = segment
            cells.append(torch.arange(r * columns + start, r * columns + end))
            lengths.append(tokens.length)
            order.append(document)
            start = end
    cells_T = torch.cat(cells) if cells else torch.zeros(0, dtype=torch.long)
    prompts, marks = [documents[i].prompt for i in order], [documents[i].mark for i in order]
    lengths_N, prompts_N, marks_N = (torch.tensor(values, dtype=torch.long) for values in (lengths, prompts, marks))
    contexts = tuple(documents[i].context for i in order)
    return Layout(input_ids, positions, segments, cells_T, lengths_N, prompts_N, marks_N, contexts, tuple(order))


def packed(documents: Sequence[Tokens], row_tokens: int, tokens_per_forward: int, padding_id: int) -> list[Layout]:
    """Pack documents into micro-batches of at most `tokens_per_forward` cells.

    They are of nearly the same height, so that none is too small to be computed well. The last is made as narrow as its
    documents allow, so that little is wasted however small the batch.
    """
    lengths = [tokens.length for tokens in documents]
    columns = row_tokens
    while columns < max(lengths, default=1):
        columns *= 2
    rows = best_fit(lengths, columns)
    count = -(-len(rows) // max(1, tokens_per_forward // columns))
    layouts = []
    for number in range(count):
        part = rows[number * len(rows) // count : (number + 1) * len(rows) // count]
        if number == count - 1:
            members = [document for row in part for document in row]
            narrow, width = _narrowest([lengths[document] for document in members], columns)
            layouts.append(lay_out(documents, [[members[i] for i in row] for row in narrow], width, padding_id))
        else:
            layouts.append(lay_out(documents, part, columns, padding_id))
    return layouts


def _narrowest(lengths: Sequence[int], columns: int) -> tuple[list[list[int]], int]:
    """Rows of the rectangle with the fewest cells that holds the documents, at most `columns` wide, and its width."""
    fewest = len(best_fit(lengths, columns))
    best: tuple[int, list[list[int]], int] | None = None
    start = max(max(lengths), -(-sum(lengths) // (fewest + 1)))
    for width in range(-(-start // _WIDTH_STEP) * _WIDTH_STEP, columns + _WIDTH_STEP, _WIDTH_STEP):
        width = min(width, columns)
        rows = best_fit(lengths, width)
        if best is None or len(rows) * width < best[0]:
            best = (len(rows) * width, rows, width)
    assert best is not None
    return best[1], best[2]


def padded(documents: Sequence[Tokens], tokens_per_forward: int, padding_id: int) -> list[Layout]:
    """One document a row, in the given order, cut into micro-batches of at most `tokens_per_forward` cells."""
    columns = max((tokens.length for tokens in documents), default=1)
    height = max(1, tokens_per_forward // columns)
    layouts = []
    for start in range(0, len(documents), height):
        chunk = range(start, min(start + height, len(documents)))
        width = max(documents[i].length for i in chunk)
        layouts.append(lay_out(documents, [[i] for i in chunk], width, padding_id))
    return layouts
