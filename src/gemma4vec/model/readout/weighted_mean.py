"""Position-weighted mean pooling (SGPT, Muennighoff 2022, arXiv:2202.08904, section 3.1)."""

from torch import Tensor

from gemma4vec.model.packing.packed_batch import PackedBatch
from gemma4vec.model.readout.base import Readout
from gemma4vec.model.readout.documents import Documents


class WeightedMean(Readout):
    """Sum of w_i h_i with w_i = i / (1 + ... + S): `[N, D]`. In a causal model, later tokens see more of the text.

    Positions count from the document's first token. With `pool_prompt: false` the remaining weights are divided by
    their own sum.

    Example: `model.readout: weighted_mean`.
    """

    name = "weighted_mean"
    sentence_transformers = "weightedmean"

    def pool(self, states: Tensor, layout: PackedBatch) -> Tensor:
        documents = Documents.of(layout, self.pool_prompt)
        states_TD = documents.select(states)
        return documents.weighted_means(states_TD, (documents.position_T + 1).to(states_TD.dtype))
