"""Mean with weights that grow with the position (SGPT, Muennighoff 2022, arXiv:2202.08904, section 3.1)."""

from torch import Tensor

from gemma4vec.model.packing.packed_batch import PackedBatch
from gemma4vec.model.readout.base import Readout
from gemma4vec.model.readout.documents import Documents


class WeightedMean(Readout):
    """sum of w_i h_i with w_i = i / (1 + ... + S): in a causal model, later tokens have seen more of the text.

    Positions count from the document's first token, also where the prompt's tokens are not pooled (then the weights of
    the others are divided by their own sum).
    """

    name = "weighted_mean"
    sentence_transformers = "weightedmean"

    def pool(self, states: Tensor, layout: PackedBatch) -> Tensor:
        documents = Documents.of(layout, self.pool_prompt)
        states_TD = documents.select(states)
        return documents.weighted_means(states_TD, (documents.position_T + 1).to(states_TD.dtype))
