"""Mean pooling (Reimers and Gurevych 2019, arXiv:1908.10084; EmbeddingGemma, arXiv:2509.20354)."""

from torch import Tensor

from gemma4vec.model.packing.packed_batch import PackedBatch
from gemma4vec.model.readout.base import Readout
from gemma4vec.model.readout.documents import mean_of


class Mean(Readout):
    """The mean of a document's token states, summed in fp32: `[N, D]`.

    With `pool_prompt: false`, the mean of the tokens after the prompt. A document that consists of its prompt alone is
    pooled whole.

    Example: `model.readout: {name: mean, pool_prompt: false}`.
    """

    name = "mean"
    sentence_transformers = "mean"

    def pool(self, states: Tensor, layout: PackedBatch) -> Tensor:
        return mean_of(states, layout, self.pool_prompt)
