"""The trainable whole: backbone, readout, optional head, unit length.

Shapes: T real tokens, N documents, P width of a pooled vector, D output dimension.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from gemma4vec.machine.transfer import to_device
from gemma4vec.model.backbone.backbone import Backbone
from gemma4vec.model.backbone.last_token_layer import with_ends
from gemma4vec.model.encoder.projection_head import Head
from gemma4vec.model.packing.packed_batch import PackedBatch
from gemma4vec.model.readout import Readout


class TextEncoder(nn.Module):
    """Layouts in, unit vectors out, fp32 from the readout on (float64 stays float64)."""

    def __init__(self, backbone: Backbone, readout: Readout, head: Head | None = None):
        super().__init__()
        self.backbone = backbone
        self.readout = readout
        self.head = head

    @property
    def dimension(self) -> int:
        """D, the length of an output vector."""
        return self.head.dimension if self.head is not None else self.readout.dimension

    def unshareable(self, *, training: bool) -> str | None:
        """Why layouts must hold each document whole, not its beginning once for all; None: they need not.

        See `model.packing.shared_prefix`.
        """
        if not self.backbone.causal:
            return "attention is bidirectional: the states of a beginning depend on what follows"
        if not self.backbone.may_share_prefixes:
            return "the model type was never verified with it"
        if "context" in self.readout.needs:
            return f"readout {self.readout.name} puts a vector of each text's own before it"
        if training and self.drops:
            return "dropout would be the same in all documents that share a beginning"
        return None

    @property
    def drops(self) -> bool:
        """Whether anything in it has dropout."""
        return any(isinstance(module, nn.Dropout) and module.p > 0 for module in self.modules())

    def forward(self, layouts: Sequence[PackedBatch]) -> Tensor:
        """Unit vectors `[N, D]` of all documents of all layouts, in the order of their numbers."""
        vectors = self.pooled(layouts)
        if self.head is not None:
            vectors = self.head(vectors)
        return functional.normalize(vectors, dim=-1)

    def pooled(self, layouts: Sequence[PackedBatch]) -> Tensor:
        """What the readout gives, before head and unit length: `[N, P]`."""
        pooled_NP = torch.cat([self._pool(layout) for layout in layouts])
        numbers = torch.tensor([number for layout in layouts for number in layout.documents])
        return pooled_NP.index_select(0, to_device(numbers.argsort(), pooled_NP.device))

    def _pool(self, layout: PackedBatch) -> Tensor:
        only_ends = self.readout.only_ends and self.backbone.computes_ends(layout)
        layout = (with_ends(layout) if only_ends else layout).to(self.backbone.device)
        settings = {"replaced": self.readout.replaced(layout), "all_layers": "all_layers" in self.readout.needs}
        if only_ends:
            vectors_NP = self.readout.pool(self.backbone(layout, only_ends=True, **settings), layout.of_ends())
        else:
            vectors_NP = self.readout.pool(self.backbone(layout, **settings), layout)
        return vectors_NP if vectors_NP.dtype == torch.float64 else vectors_NP.float()
