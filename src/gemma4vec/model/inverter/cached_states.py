"""States of texts that grow token by token: keys and values of earlier tokens are kept, none is computed twice.

All rows have the same length, so that no padding and no mask of ours is needed; the library's own causal masks are
right then, also with sliding windows.

Shapes: R rows, C columns, D hidden size.
"""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from gemma4vec.model import upstream
from gemma4vec.model.backbone.architectures import library_attention
from gemma4vec.model.backbone.backbone import Backbone
from gemma4vec.model.packing.embedding_overrides import EmbeddingOverrides
from gemma4vec.model.packing.packed_batch import Tokens, lay_out


class CachedStates:
    """The growing rows of one generation by a causal backbone, without gradients."""

    def __init__(self, backbone: Backbone):
        if not backbone.causal:
            raise ValueError("a bidirectional backbone has no states that stay")
        self.backbone = backbone
        self._cache: Any = DynamicCache(config=backbone.config)

    def start(self, ids: list[int], overrides: EmbeddingOverrides | None, rows: int) -> Tensor:
        """Read the same tokens in every row, with other embeddings in some cells (row * C + column).

        Returns:
            The states of the rows' last tokens, `[R, D]`.
        """
        layout = lay_out([Tokens(ids)] * rows, [[row] for row in range(rows)], len(ids), 0).to(self.backbone.device)
        return self._run(self.backbone.inputs(layout, overrides))

    def step(self, tokens_R: Tensor) -> Tensor:
        """Add one token to each row; return its states, `[R, D]`."""
        return self._run({"input_ids": tokens_R.to(self.backbone.device)[:, None]})

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order; a row may be taken several times."""
        self._cache.batch_select_indices(rows.to(self.backbone.device))

    @torch.no_grad()
    def _run(self, inputs: dict[str, Tensor]) -> Tensor:
        backbone = self.backbone
        upstream.set_attention_function(backbone.config, library_attention(backbone.config))
        with torch.compiler.set_stance("force_eager") if backbone.compiled else nullcontext():
            states_RCD: Tensor = backbone.model(**inputs, past_key_values=self._cache, use_cache=True).last_hidden_state
        return states_RCD[:, -1]
