"""Last-token pooling (Neelakantan et al. 2022, arXiv:2201.10005; Wang et al. 2023, arXiv:2401.00368)."""

from torch import Tensor

from gemma4vec.model.packing.packed_batch import PackedBatch
from gemma4vec.model.readout.base import Readout
from gemma4vec.model.readout.documents import last_token_indices


class LastToken(Readout):
    """The state of a document's last token, an appended EOS: `[N, D]`.

    In a causal model it is the only token that sees the whole text.

    Example: `model.readout: last_token`.
    """

    name = "last_token"
    needs = frozenset({"eos"})
    last_token_only = True
    sentence_transformers = "lasttoken"

    def pool(self, states: Tensor, layout: PackedBatch) -> Tensor:
        return states.index_select(0, last_token_indices(layout))
