"""The texts of a batch as micro-batches that fill a token budget with little padding.

Packed: see `model.packing.packed_batch`. Padded: texts of similar length share a rectangle, so that little of it is
padding; in drawn order, a rectangle would be as wide as the longest text that happens to be in it.
"""

from collections.abc import Sequence

import numpy as np

from gemma4vec.errors import InputError
from gemma4vec.model.encoder.encoder import TextEncoder
from gemma4vec.model.packing.packed_batch import PackedBatch, Tokens, lay_out, pack, padding_share
from gemma4vec.recipe import schema

# A GPU's fused attention needs mask rows that start at multiples of 16 bytes: 8 keys in bf16.
_GPU_WIDTH_STEP = 8
# Fixed cost of a rectangle: the budget divided by this, in cells.
RECTANGLE_COST = 16


def lay_out_texts(
    texts: Sequence[Tokens], layout: schema.Layout, padding_id: int, *, share: bool = False, device: str = "cpu"
) -> list[PackedBatch]:
    """Micro-batches of at most `tokens_per_forward` cells each (or one text, if it alone has more).

    Args:
        texts: the tokens of a batch's texts.
        layout: the recipe's.
        padding_id: token that fills cells.
        share: whether packed layouts hold a prefix that texts share once (see `can_share_prefix`).
        device: kind of device; on a GPU all widths are multiples of 8.
    """
    step = _GPU_WIDTH_STEP if device == "cuda" else 1
    if layout.kind == "padded":
        return pad_by_length(texts, layout.tokens_per_forward, padding_id, step)
    return pack(texts, _round_up(layout.row_tokens, step), layout.tokens_per_forward, padding_id, share=share)


def can_share_prefix(layout: schema.Layout, encoder: TextEncoder) -> bool:
    """Whether packed layouts hold a prefix that documents share, such as their prompt, once.

    Raises:
        InputError: the recipe demands it and this model does not allow it.
    """
    if layout.share_prefixes is False or layout.kind == "padded":
        return False
    reason = encoder.reason_not_to_share(training=True)
    if reason and layout.share_prefixes is True:
        raise InputError(f"layout.share_prefixes: {reason}; set it to auto or false")
    return reason is None


def pad_by_length(
    texts: Sequence[Tokens], tokens_per_forward: int, padding_id: int, width_step: int = 1
) -> list[PackedBatch]:
    """Rectangles of one text a row, long texts first, cut where that costs the fewest cells (see `cut_rectangles`).

    Widths are multiples of `width_step`.
    """
    order = sorted(range(len(texts)), key=lambda i: (-texts[i].length, i))
    widths = [_round_up(texts[i].length, width_step) for i in order]
    layouts = []
    for start, end in cut_rectangles(widths, tokens_per_forward):
        layouts.append(lay_out(texts, [[i] for i in order[start:end]], widths[start], padding_id))
    return layouts


def _round_up(length: int, step: int) -> int:
    """The smallest multiple of `step` that is at least `length`."""
    return -(-length // step) * step


def cut_rectangles(lengths: Sequence[int], budget: int) -> list[tuple[int, int]]:
    """(start, end) of rectangles of at most `budget` cells (or one text), of texts sorted from long to short.

    Minimizes cells plus a sixteenth of the budget for each rectangle, since small rectangles run less efficiently.
    Cuts are between texts of different length, and within a length where a rectangle is full. Dynamic programming.
    """
    widths, starts = np.unique(-np.asarray(lengths, dtype=np.int64), return_index=True)
    widths, bounds = -widths, np.append(starts, len(lengths))
    heights = np.maximum(1, budget // np.maximum(1, widths))
    cost = np.zeros(len(bounds))
    cheapest = np.zeros(len(bounds), dtype=np.int64)
    for end in range(1, len(bounds)):
        counts = bounds[end] - bounds[:end]
        rectangles = -(-counts // heights[:end])
        whole = cost[:end] + counts * widths[:end] + rectangles * (budget / RECTANGLE_COST)
        cheapest[end] = int(whole.argmin())
        cost[end] = whole[cheapest[end]]
    found: list[tuple[int, int]] = []
    end = len(bounds) - 1
    while end > 0:
        begin = int(cheapest[end])
        first, last, height = int(bounds[begin]), int(bounds[end]), int(heights[begin])
        found += [(at, min(at + height, last)) for at in range(first, last, height)][::-1]
        end = begin
    return found[::-1]


def padding_by_layout(
    groups: Sequence[Sequence[PackedBatch]], layout: schema.Layout, *, share: bool = False
) -> dict[str, float]:
    """Share of padding cells, packed and padded, of texts that were laid out in these groups.

    `share`: whether packed layouts hold shared prefixes once.
    """
    texts = [texts_of(group) for group in groups]
    shares = {}
    for kind in ("packed", "padded"):
        settings = layout.model_copy(update={"kind": kind})
        shares[kind] = padding_share([one for group in texts for one in lay_out_texts(group, settings, 0, share=share)])
    return shares


def texts_of(layouts: Sequence[PackedBatch]) -> list[Tokens]:
    """The tokens of the texts in layouts, without marks of prompts."""
    found = []
    for layout in layouts:
        ids_T = layout.input_ids_RC.reshape(-1)[layout.cells_T]
        found += [Tokens(ids_L.tolist()) for ids_L in ids_T.split(layout.lengths_N.tolist())]
    return found
