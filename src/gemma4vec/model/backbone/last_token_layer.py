"""The last layer, where only the state of each document's last token is read of it.

A readout such as `last_token` uses one state of a document. All tokens still give the last layer's keys and values,
but only the last token of each document needs a query, an attention output and a feed-forward: in Gemma 3 270M that
saves 5% of the whole computation, values and gradients unchanged.

The library's own layer runs twice over, once on whole rows, of which the keys and values are kept, and once on the last
tokens, which attend to these. Compiled, nothing of the first run that leads nowhere else is computed; uncompiled it
would be, so it is for compiled layers alone. (Not for checkpointed ones either: there the library refuses its cache.)

Shapes: R rows, C columns, M last tokens of a row (the most that one has, and at least 2), D hidden size.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from gemma4vec.model.packing.packed_batch import PackedBatch


class _WholeRows:
    """Stands where the library has a cache: keeps keys and values of the first run, and gives them in the second."""

    def __init__(self) -> None:
        self.kept: tuple[Tensor, Tensor] | None = None

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """The library's name for it."""
        if self.kept is None:
            self.kept = (keys, values)
        return self.kept


def take_ends(layer: nn.Module) -> None:
    """Make the layer take `ends_RM`, columns of the tokens wanted in each row; it gives their states `[R, M, D]`."""
    whole: Any = layer.forward

    def forward(
        hidden_states: Tensor,
        *,
        attention_mask: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        ends_RM: Tensor | None = None,
        **settings: Any,
    ) -> Tensor:
        named: dict[str, Any] = settings | {
            "attention_mask": attention_mask,
            "position_embeddings": position_embeddings,
        }
        if ends_RM is None:
            return whole(hidden_states, **named)  # type: ignore[no-any-return]
        named["past_key_values"] = _WholeRows()
        whole(hidden_states, **named)
        named["attention_mask"] = _pick(attention_mask.squeeze(1), ends_RM).unsqueeze(1)
        named["position_embeddings"] = tuple(_pick(x, ends_RM) for x in position_embeddings)
        return whole(_pick(hidden_states, ends_RM), **named)  # type: ignore[no-any-return]

    layer.forward = forward


def _pick(states_RCD: Tensor, columns_RM: Tensor) -> Tensor:
    """`[R, M, D]`: some columns of each row."""
    rows, columns = states_RCD.shape[:2]
    first_R = torch.arange(0, rows * columns, columns, device=columns_RM.device)
    picked = states_RCD.flatten(0, 1).index_select(0, (columns_RM + first_R[:, None]).flatten())
    return picked.view(rows, -1, states_RCD.shape[2])


def with_ends(layout: PackedBatch) -> PackedBatch:
    """The layout with `ends_of_rows`, for one that is about to move: on a GPU these few numbers would be waited for."""
    return layout if layout.ends is not None else replace(layout, ends=ends_of_rows(layout))


def ends_of_rows(layout: PackedBatch) -> tuple[Tensor, Tensor]:
    """Columns of the last tokens in each row `[R, M]`, and where each document's stands in that, flattened: `[N]`."""
    rows, columns = layout.input_ids_RC.shape
    cells_N = layout.cells_T[layout.lengths_N.cumsum(0) - 1]
    row_N = cells_N // columns
    place_N = torch.empty_like(row_N)
    counts_R = torch.bincount(row_N, minlength=rows)
    order_N = row_N.argsort(stable=True)
    starts_R = counts_R.cumsum(0) - counts_R
    place_N[order_N] = torch.arange(len(row_N), device=row_N.device) - starts_R[row_N[order_N]]
    most = max(2, int(counts_R.max()))  # compiled layers serve all numbers but one
    ends_RM = torch.zeros(rows, most, dtype=torch.long, device=row_N.device)
    ends_RM[row_N, place_N] = cells_N % columns
    return ends_RM, row_N * most + place_N
