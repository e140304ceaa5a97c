"""Rectangles of tokens: several documents in a row (packed), or one document in a row (padded).

Packing is best-fit decreasing (Johnson 1974): documents from long to short, each into the fullest row that still has
room. A document never crosses rows, so a block mask inside each row isolates documents. Prefixes that documents share
are stored once in each rectangle, at the start of its first row (`model.packing.shared_prefix`).

Shapes: R rows, C columns (tokens of a row), T real tokens of all documents, N documents.
"""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gemma4vec.machine.device import to_device
from gemma4vec.model.packing.shared_prefix import NONE, SharedPrefixes, find_shared_prefixes

# The width of the last rectangle is a multiple of this.
_WIDTH_STEP = 8
# With shared prefixes, the number of keys is a multiple of this (saves 3% of a training step on a CPU).
_ALIGNED = 16
_NO_CELLS = np.zeros(0, dtype=np.int64)


class Tokens(NamedTuple):
    """A tokenized text.

    Attributes:
        ids: token ids.
        prompt: number of tokens of the prompt, BOS included.
        mark: index of a token that the readout marked, such as the first one of the text's second copy.
        context: text for a second encoder, if the readout has one.
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
class PackedBatch:
    """One rectangle of tokens for one forward pass.

    Attributes:
        input_ids_RC: token ids; padding cells hold `padding_id`.
        positions_RC: position of each token in its own document, from 0; 0 in padding cells.
        segments_RC: number of the document in its row, from 0; -1 in padding cells.
        cells_T: flat index (row * C + column) of every real token, document after document; cells of a shared
            prefix are named in each of its documents.
        lengths_N: number of tokens of each document, in the order of `cells_T`.
        prompts_N: number of tokens of each document's prompt.
        marks_N: index in its document of the token that the readout marked (see `Tokens`).
        contexts: for each of the N documents, the text for a second encoder.
        documents: for each of the N documents, its number in the list that was laid out.
        prefix_RC: segment of row 0 that holds the shared prefix of a cell's document; -1: it has none.
        shared: number of cells, from the first of row 0, that may hold shared prefixes.
        after_prompts: number of tokens after the documents' prompts; a document that is its prompt alone counts whole.
            It follows from `lengths_N` and `prompts_N`, but computing it on a GPU would force a sync.
        last_tokens: result of `last_token_layer.find_last_tokens`, if computed before the layout was moved.
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
    prefix_RC: Tensor
    shared: int
    after_prompts: int
    last_tokens: tuple[Tensor, Tensor] | None = None

    @property
    def compilable(self) -> bool:
        """Whether compiled layers accept it. Height or width 1 would need a graph of its own."""
        return min(self.input_ids_RC.shape) > 1

    @property
    def real_tokens(self) -> int:
        """Number of tokens of the documents, each counted whole."""
        return self.cells_T.numel()

    @property
    def computed_tokens(self) -> int:
        """Number of tokens that are computed: shared prefixes count once."""
        return int((self.segments_RC >= 0).sum())

    @property
    def all_tokens(self) -> int:
        """Number of cells of the rectangle, padding included."""
        return self.input_ids_RC.numel()

    def keep_last_tokens(self) -> "PackedBatch":
        """The same documents, reduced to their last tokens, for states of last tokens alone."""
        ends_N = self.lengths_N.cumsum(0) - 1
        ones_N = torch.ones_like(self.lengths_N)
        return replace(self, cells_T=self.cells_T[ends_N], lengths_N=ones_N, after_prompts=len(ends_N))

    def to(self, device: torch.device | str) -> "PackedBatch":
        """The same layout on another device, without a sync."""
        moved: dict[str, Any] = {
            field.name: to_device(value, device)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        last_tokens = (
            None
            if self.last_tokens is None
            else (to_device(self.last_tokens[0], device), to_device(self.last_tokens[1], device))
        )
        return replace(self, **moved, last_tokens=last_tokens)


def padding_share(layouts: Sequence[PackedBatch]) -> float:
    """Fraction of computed cells that hold no real token."""
    cells = sum(layout.all_tokens for layout in layouts)
    return 1.0 - sum(layout.computed_tokens for layout in layouts) / cells if cells else 0.0


def best_fit(lengths: Sequence[int], capacity: int, filled: Sequence[int] = ()) -> list[list[int]]:
    """Put documents into rows of at most `capacity` tokens.

    Args:
        lengths: number of tokens of each document.
        capacity: tokens of a row.
        filled: number of tokens that the first rows already hold. These rows come first, even if no document fits.

    Returns:
        The document numbers of each row, long documents first.

    Raises:
        ValueError: a document is longer than `capacity`.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    rows: list[list[int]] = [[] for _ in filled]
    # (free tokens, row), sorted: the first row that fits is the fullest
    open_rows = sorted((capacity - taken, row) for row, taken in enumerate(filled) if taken < capacity)
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
    prefixes: SharedPrefixes = NONE,
) -> PackedBatch:
    """Build a rectangle.

    Args:
        documents: tokens of all documents.
        rows: document numbers of each row.
        columns: C.
        padding_id: token of padding cells.
        height: R, if empty rows are to follow.
        prefixes: shared prefixes; the first row holds them before its documents, which are stored without them.
    """
    shape = (height or len(rows), columns)
    # numpy: its small operations take a fifth of torch's time, and each document needs several.
    input_ids = np.full(shape, padding_id, dtype=np.int64)
    positions = np.zeros(shape, dtype=np.int64)
    segments = np.full(shape, -1, dtype=np.int64)
    begun = np.full(shape, -1, dtype=np.int64)

    def put(ids: Sequence[int], row: int, column: int, segment: int, position: int) -> NDArray[np.int64]:
        end = column + len(ids)
        input_ids[row, column:end] = ids
        positions[row, column:end] = np.arange(position, position + len(ids))
        segments[row, column:end] = segment
        return np.arange(row * columns + column, row * columns + end, dtype=np.int64)

    shared: list[NDArray[np.int64]] = []
    for segment, ids in enumerate(prefixes.tokens):
        shared.append(put(ids, 0, sum(map(len, shared)), segment, 0))
    cells: list[NDArray[np.int64]] = []
    order: list[int] = []
    for r, row in enumerate(rows):
        start, before = (prefixes.size, len(shared)) if r == 0 else (0, 0)
        for segment, document in enumerate(row, before):
            prefix = prefixes.of(document)
            first = shared[prefix] if prefix >= 0 else _NO_CELLS
            rest = put(documents[document].ids[len(first) :], r, start, segment, len(first))
            begun[r, start : start + len(rest)] = prefix
            cells += [first, rest]
            order.append(document)
            start += len(rest)
    cells_T = np.concatenate(cells) if cells else _NO_CELLS
    lengths, prompts, marks = ([getattr(documents[i], name) for i in order] for name in ("length", "prompt", "mark"))
    lengths_N, prompts_N, marks_N = (torch.tensor(values, dtype=torch.long) for values in (lengths, prompts, marks))
    contexts = tuple(documents[i].context for i in order)
    return PackedBatch(
        torch.from_numpy(input_ids),
        torch.from_numpy(positions),
        torch.from_numpy(segments),
        torch.from_numpy(cells_T),
        lengths_N,
        prompts_N,
        marks_N,
        contexts,
        tuple(order),
        torch.from_numpy(begun),
        _aligned(prefixes.size, columns),
        sum(length - prompt if prompt < length else length for length, prompt in zip(lengths, prompts, strict=True)),
    )


def _aligned(shared: int, columns: int) -> int:
    """Number of cells of row 0 that all rows attend to, with a few masked ones for faster matrix products."""
    return min(columns, shared + -(shared + columns) % _ALIGNED) if shared else 0


def pack(
    documents: Sequence[Tokens], row_tokens: int, tokens_per_forward: int, padding_id: int, *, share: bool = False
) -> list[PackedBatch]:
    """Pack documents into micro-batches.

    They have nearly equal heights, so that none is too small to be fast. The last one is as narrow as its documents
    allow, which wastes little even for small batches.

    Args:
        documents: tokens of all documents.
        row_tokens: C of a row; doubled until the longest document fits.
        tokens_per_forward: cells of a micro-batch at most.
        padding_id: token of padding cells.
        share: store shared prefixes once in each micro-batch. Only for causal attention, where their states do not
            depend on what follows.
    """
    prefixes = find_shared_prefixes([tokens.ids for tokens in documents], row_tokens // 4) if share else NONE
    lengths = [tokens.length - prefixes.length(number) for number, tokens in enumerate(documents)]
    columns = row_tokens
    while columns < max(lengths, default=1):
        columns *= 2
    # Texts cut at the row's length are now shorter by their prefix.
    narrower = range(columns, max([columns - prefixes.longest, *lengths]) - 1, -1)
    tried = [(width, _micro_batches(lengths, width, tokens_per_forward, prefixes.size)) for width in narrower]
    columns, batches = min(tried, key=lambda one: one[0] * sum(map(len, one[1])))
    layouts = []
    for part in batches:
        width = columns
        if part is batches[-1]:
            members = [document for row in part for document in row]
            narrow, width = _narrowest([lengths[document] for document in members], columns, prefixes.size)
            part = [[members[i] for i in row] for row in narrow]
        needed = prefixes.only_of([document for row in part for document in row])
        layouts.append(lay_out(documents, part, width, padding_id, prefixes=needed))
    return layouts


def _micro_batches(lengths: Sequence[int], columns: int, most: int, first: int) -> list[list[list[int]]]:
    """Rows of each micro-batch of at most `most` cells. The first row of each keeps `first` tokens free."""
    height = max(1, most // columns)
    count, needed = 0, 1
    while needed > count:
        count = needed
        rows = best_fit(lengths, columns, [first] * count if first else [])
        needed = -(-len(rows) // height)
    if not first:
        return [rows[i * len(rows) // count : (i + 1) * len(rows) // count] for i in range(count)]
    begun, others = rows[:count], rows[count:]
    parts = [[begun[i], *others[i * len(others) // count : (i + 1) * len(others) // count]] for i in range(count)]
    return [part for part in parts if any(part)]


def _narrowest(lengths: Sequence[int], columns: int, first: int) -> tuple[list[list[int]], int]:
    """Rows and width of the smallest rectangle, at most `columns` wide, that holds the documents."""
    filled = [first] if first else []
    fewest = len(best_fit(lengths, columns, filled))
    best: tuple[int, list[list[int]], int] | None = None
    start = max(*lengths, first, -(-(sum(lengths) + first) // (fewest + 1)))
    for width in range(-(-start // _WIDTH_STEP) * _WIDTH_STEP, columns + _WIDTH_STEP, _WIDTH_STEP):
        width = min(width, columns)
        rows = best_fit(lengths, width, filled)
        if best is None or len(rows) * width < best[0]:
            best = (len(rows) * width, rows, width)
    assert best is not None
    return best[1], best[2]


def pad(documents: Sequence[Tokens], tokens_per_forward: int, padding_id: int) -> list[PackedBatch]:
    """Put one document in each row, in the given order, in micro-batches of at most `tokens_per_forward` cells."""
    columns = max((tokens.length for tokens in documents), default=1)
    height = max(1, tokens_per_forward // columns)
    layouts = []
    for start in range(0, len(documents), height):
        chunk = range(start, min(start + height, len(documents)))
        width = max(documents[i].length for i in chunk)
        layouts.append(lay_out(documents, [[i] for i in chunk], width, padding_id))
    return layouts
