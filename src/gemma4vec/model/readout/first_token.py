"""State of the first token, BOS where the base has one, as BERT's [CLS] (Devlin et al. 2019, arXiv:1810.04805)."""

from torch import Tensor

from gemma4vec.model.packing.packed_batch import PackedBatch
from gemma4vec.model.readout.base import Readout
from gemma4vec.model.readout.documents import starts_of


class FirstToken(Readout):
    """The state of a document's first token. In a causal model it has seen nothing but itself, so that is refused."""

    name = "first_token"
    needs = frozenset({"bidirectional"})
    sentence_transformers = "cls"

    def pool(self, states: Tensor, layout: PackedBatch) -> Tensor:
        return states.index_select(0, starts_of(layout))
