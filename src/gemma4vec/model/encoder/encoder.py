"""The trainable encoder: backbone, readout, optional head, normalization to unit length.

Shapes: T real tokens, N documents, P width of a pooled vector, D output dimension.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from gemma4vec.machine.device import to_device
from gemma4vec.model.backbone.backbone import Backbone
from gemma4vec.model.backbone.last_token_layer import add_last_tokens
from gemma4vec.model.encoder.projection_head import Head
from gemma4vec.model.packing.packed_batch import PackedBatch
from gemma4vec.model.readout import Readout


class TextEncoder(nn.Module):
    """Maps layouts to unit vectors, in fp32 from the readout on (float64 stays float64)."""

    def __init__(self, backbone: Backbone, readout: Readout, head: Head | None = None):
        super().__init__()
        self.backbone = backbone
        self.readout = readout
        self.head = head

    @property
    def dimension(self) -> int:
        """D, the length of an output vector."""
        return self.head.dimension if self.head is not None else self.readout.dimension

    @property
    def head_layers(self) -> list[nn.Linear]:
        """The head's linear layers, first to last; empty without a head."""
        return self.head.layers if self.head is not None else []

    def reason_not_to_share(self, *, training: bool) -> str | None:
        """Why layouts must not store shared prefixes once (`model.packing.shared_prefix`); None: they may."""
        if not self.backbone.causal:
            return "attention is bidirectional: the states of a prefix depend on what follows"
        if not self.backbone.may_share_prefixes:
            return "the model type was never verified with it"
        if "context" in self.readout.needs:
            return f"readout {self.readout.name} puts a different vector before each text"
        if training and self.has_dropout:
            return "dropout would be the same in all documents that share a prefix"
        return None

    @property
    def has_dropout(self) -> bool:
        """Whether any module has dropout."""
        return any(isinstance(module, nn.Dropout) and module.p > 0 for module in self.modules())

    def forward(self, layouts: Sequence[PackedBatch]) -> Tensor:
        """Unit vectors `[N, D]` of the documents of all layouts, in the order of `PackedBatch.documents`."""
        vectors = self.pool(layouts)
        if self.head is not None:
            vectors = self.head(vectors)
        return functional.normalize(vectors, dim=-1)

    def pool(self, layouts: Sequence[PackedBatch]) -> Tensor:
        """Pooled vectors before head and normalization: `[N, P]`, in the order of `PackedBatch.documents`."""
        pooled_NP = torch.cat([self._pool(layout) for layout in layouts])
        numbers = torch.tensor([number for layout in layouts for number in layout.documents])
        return pooled_NP.index_select(0, to_device(numbers.argsort(), pooled_NP.device))

    def _pool(self, layout: PackedBatch) -> Tensor:
        last_token_only = self.readout.last_token_only and self.backbone.supports_last_token_only(layout)
        layout = (add_last_tokens(layout) if last_token_only else layout).to(self.backbone.device)
        settings = {
            "overrides": self.readout.override_embeddings(layout),
            "all_layers": "all_layers" in self.readout.needs,
        }
        if last_token_only:
            vectors_NP = self.readout.pool(
                self.backbone(layout, last_token_only=True, **settings), layout.keep_last_tokens()
            )
        else:
            vectors_NP = self.readout.pool(self.backbone(layout, **settings), layout)
        return vectors_NP if vectors_NP.dtype == torch.float64 else vectors_NP.float()
