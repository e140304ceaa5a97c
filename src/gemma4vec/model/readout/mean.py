"""Mean of a document's token states (Reimers and Gurevych 2019, arXiv:1908.10084; EmbeddingGemma, arXiv:2509.20354)."""

from torch import Tensor

from gemma4vec.model.packing.packed_batch import PackedBatch
from gemma4vec.model.readout.base import Readout
from gemma4vec.model.readout.documents import mean_of


class Mean(Readout):
    """The mean over all tokens, summed in fp32; with `pool_prompt` off, over the tokens after the prompt.

    A document that is nothing but its prompt is pooled whole: the mean of no tokens would not be a vector.
    """

    name = "mean"
    sentence_transformers = "mean"

    def pool(self, states: Tensor, layout: PackedBatch) -> Tensor:
        return mean_of(states, layout, self.pool_prompt)
