"""The texts of a batch as micro-batches that fill a token budget with little waste.

Packed: see `model.packing`. Padded: texts of like length share a rectangle, so that little of it is padding; in the
order in which they were drawn, a rectangle would be as wide as the longest of whatever fell together.
"""

from collections.abc import Sequence

from gemma4vec.model.packing import Layout, Tokens, lay_out, packed, padding_share
from gemma4vec.recipe import schema


def lay_out_texts(texts: Sequence[Tokens], layout: schema.Layout, padding_id: int) -> list[Layout]:
    """The micro-batches of texts, each of at most `tokens_per_forward` cells (one text, if it alone has more)."""
    if layout.kind == "padded":
        return padded_by_length(texts, layout.tokens_per_forward, padding_id)
    return packed(texts, layout.row_tokens, layout.tokens_per_forward, padding_id)


def padded_by_length(texts: Sequence[Tokens], tokens_per_forward: int, padding_id: int) -> list[Layout]:
    """One text a row, long ones first; each rectangle takes as many of the next ones as the budget allows."""
    order = sorted(range(len(texts)), key=lambda i: (-texts[i].length, i))
    layouts = []
    start = 0
    while start < len(order):
        width = texts[order[start]].length
        chosen = order[start : start + max(1, tokens_per_forward // width)]
        layouts.append(lay_out(texts, [[i] for i in chosen], width, padding_id))
        start += len(chosen)
    return layouts


def padding_by_layout(groups: Sequence[Sequence[Layout]], layout: schema.Layout) -> dict[str, float]:
    """What share of the cells would be padding in either layout, for texts that were laid out in these groups."""
    texts = [texts_of(group) for group in groups]
    shares = {}
    for kind in ("packed", "padded"):
        settings = layout.model_copy(update={"kind": kind})
        shares[kind] = padding_share([one for group in texts for one in lay_out_texts(group, settings, 0)])
    return shares


def texts_of(layouts: Sequence[Layout]) -> list[Tokens]:
    """The tokens of the texts in layouts, without prompts and marks."""
    found = []
    for layout in layouts:
        ids_T = layout.input_ids_RC.reshape(-1)[layout.cells_T]
        found += [Tokens(ids_L.tolist()) for ids_L in ids_T.split(layout.lengths_N.tolist())]
    return found
