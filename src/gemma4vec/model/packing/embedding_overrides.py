"""Vectors that replace the input embeddings of some tokens, for readouts that add states of their own.

Shapes: R rows, C columns, K replaced cells, D hidden size.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class EmbeddingOverrides:
    """Vectors for some cells of a layout, instead of their tokens' embeddings.

    Attributes:
        cells_K: flat index (row * C + column) of each cell, as in `PackedBatch.cells_T`; no cell twice.
        states_KD: their vectors, in the scale in which states enter the first layer: about the size of
            `Backbone.input_states`. (The Gemmas multiply embeddings by sqrt(D); this is the scale afterwards.)
            Gradients reach them.

    A model with per-layer embeddings (Gemma 4) still reads the token id of a replaced cell. Use the padding token, as
    Gemma 4 does for images.
    """

    cells_K: Tensor
    states_KD: Tensor

    def put_into(self, embeddings_RCD: Tensor) -> Tensor:
        """Replace these cells of the embeddings: `[R, C, D]`."""
        cells = self.cells_K.to(embeddings_RCD.device)
        states = self.states_KD.to(device=embeddings_RCD.device, dtype=embeddings_RCD.dtype)
        return embeddings_RCD.flatten(0, 1).index_copy(0, cells, states).view(embeddings_RCD.shape)
