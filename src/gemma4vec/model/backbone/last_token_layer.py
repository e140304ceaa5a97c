"""Compute the last layer only for the tokens that last-token pooling reads.

A readout such as `last_token` uses one state of each document. The last layer still needs keys and values of all
tokens, but queries, attention outputs and feed-forward only of the last token of each document. In Gemma 3 270M that
saves 5% of the whole computation; values and gradients stay the same.

The library's own layer runs twice: once on whole rows, until it has keys and values, and once on the last tokens, which
attend to them. The compiler drops the queries of the first run. Uncompiled layers would compute them, so this is for
compiled layers alone, and not for checkpointed ones, whose library code refuses a cache.

Shapes: R rows, C columns, M last tokens of a row (the maximum over rows, at least 2), D hidden size.
"""

from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from gemma4vec.model import upstream
from gemma4vec.model.packing.packed_batch import PackedBatch


class _KeysStoredError(Exception):
    """Ends the first run: what follows its keys and values is not needed, and takes seconds to trace."""


class _StoredKeys:
    """In the role of the library's cache: stores keys and values of the first run and returns them in the second."""

    def __init__(self) -> None:
        self.kept: tuple[Tensor, Tensor] | None = None

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Called by the library's attention layer.

        Raises:
            _KeysStoredError: this is the first run.
        """
        if self.kept is None:
            self.kept = (keys, values)
            raise _KeysStoredError
        return self.kept


def enable_last_token_only(layer: nn.Module) -> None:
    """Let the layer accept `last_RM`, columns of tokens in each row, and return the states of these: `[R, M, D]`."""

    def forward(
        hidden_states: Tensor,
        *,
        attention_mask: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        last_RM: Tensor | None = None,
        **settings: Any,
    ) -> Tensor:
        named: dict[str, Any] = settings | {
            "attention_mask": attention_mask,
            "position_embeddings": position_embeddings,
        }
        if last_RM is None:
            return whole(hidden_states, **named)  # type: ignore[no-any-return]
        named["past_key_values"] = _StoredKeys()
        with suppress(_KeysStoredError):
            whole(hidden_states, **named)
        named["attention_mask"] = _pick(attention_mask.squeeze(1), last_RM).unsqueeze(1)
        named["position_embeddings"] = tuple(_pick(x, last_RM) for x in position_embeddings)
        return whole(_pick(hidden_states, last_RM), **named)  # type: ignore[no-any-return]

    whole = upstream.replace_forward(layer, forward)


def _pick(states_RCD: Tensor, columns_RM: Tensor) -> Tensor:
    """Some columns of each row: `[R, M, D]`."""
    rows, columns = states_RCD.shape[:2]
    first_R = torch.arange(0, rows * columns, columns, device=columns_RM.device)
    picked = states_RCD.flatten(0, 1).index_select(0, (columns_RM + first_R[:, None]).flatten())
    return picked.view(rows, -1, states_RCD.shape[2])


def add_last_tokens(layout: PackedBatch) -> PackedBatch:
    """Store `find_last_tokens` in a layout before it moves to a GPU, where computing it would force a sync."""
    return layout if layout.last_tokens is not None else replace(layout, last_tokens=find_last_tokens(layout))


def find_last_tokens(layout: PackedBatch) -> tuple[Tensor, Tensor]:
    """Columns of the last tokens in each row, `[R, M]`, and each document's flat index into them, `[N]`."""
    rows, columns = layout.input_ids_RC.shape
    cells_N = layout.cells_T[layout.lengths_N.cumsum(0) - 1]
    row_N = cells_N // columns
    place_N = torch.empty_like(row_N)
    counts_R = torch.bincount(row_N, minlength=rows)
    order_N = row_N.argsort(stable=True)
    starts_R = counts_R.cumsum(0) - counts_R
    place_N[order_N] = torch.arange(len(row_N), device=row_N.device) - starts_R[row_N[order_N]]
    most = max(2, int(counts_R.max()))  # size 1 would need a graph of its own
    last_RM = torch.zeros(rows, most, dtype=torch.long, device=row_N.device)
    last_RM[row_N, place_N] = cells_N % columns
    return last_RM, row_N * most + place_N
