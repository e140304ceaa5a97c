"""First-token pooling, as BERT's [CLS] (Devlin et al. 2019, arXiv:1810.04805)."""

from torch import Tensor

from gemma4vec.model.packing.packed_batch import PackedBatch
from gemma4vec.model.readout.base import Readout
from gemma4vec.model.readout.documents import first_token_indices


class FirstToken(Readout):
    """The state of a document's first token, `[N, D]`; BOS if the base has one.

    Refused on a causal model, whose first token sees nothing but itself.

    Example: `model.readout: first_token` with `model.attention: bidirectional`.
    """

    name = "first_token"
    needs = frozenset({"bidirectional"})
    sentence_transformers = "cls"

    def pool(self, states: Tensor, layout: PackedBatch) -> Tensor:
        return states.index_select(0, first_token_indices(layout))
