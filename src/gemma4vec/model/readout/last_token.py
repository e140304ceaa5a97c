"""State of the last token, an appended EOS (Neelakantan 2022, arXiv:2201.10005; Wang 2023, arXiv:2401.00368)."""

from torch import Tensor

from gemma4vec.model.packing.packed_batch import PackedBatch
from gemma4vec.model.readout.base import Readout
from gemma4vec.model.readout.documents import ends_of


class LastToken(Readout):
    """The state of a document's last token. In a causal model it is the only one that has seen the whole text."""

    name = "last_token"
    needs = frozenset({"eos"})
    only_ends = True
    sentence_transformers = "lasttoken"

    def pool(self, states: Tensor, layout: PackedBatch) -> Tensor:
        return states.index_select(0, ends_of(layout))
