"""Vectors in the place of tokens: what a model is given where a readout puts a state of its own into the input.

Shapes: R rows, C columns, K replaced cells, D hidden size.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class EmbeddingOverrides:
    """Input embeddings that stand in for those of some cells of a layout.

    Attributes:
        cells_K: flat index (row * C + column) of each cell, as in `PackedBatch.cells_T`; no cell twice.
        states_KD: what stands there, in the scale in which states enter the first layer. Where a base multiplies its
            embeddings first (the Gemmas do, by sqrt(D)), that is the scale after the multiplication: a vector of
            about the size of `Backbone.input_states`. Gradients reach it.

    The token id of a replaced cell is still read where a model has per-layer embeddings (Gemma 4): put the padding
    token there, as Gemma 4 itself does for images.
    """

    cells_K: Tensor
    states_KD: Tensor

    def put_into(self, embeddings_RCD: Tensor) -> Tensor:
        """The embeddings `[R, C, D]` with these cells replaced."""
        cells = self.cells_K.to(embeddings_RCD.device)
        states = self.states_KD.to(device=embeddings_RCD.device, dtype=embeddings_RCD.dtype)
        return embeddings_RCD.flatten(0, 1).index_copy(0, cells, states).view(embeddings_RCD.shape)
