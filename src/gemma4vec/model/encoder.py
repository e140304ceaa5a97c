"""The trainable whole: backbone, readout, optional linear head, unit length.

Shapes: T real tokens, N documents, D output dimension.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from gemma4vec.model.backbone import Backbone
from gemma4vec.model.packing import Layout
from gemma4vec.model.readout.base import Readout


class TextEncoder(nn.Module):
    """Layouts in, unit vectors out, fp32 from the readout on (float64 stays float64)."""

    def __init__(self, backbone: Backbone, readout: Readout, projection: nn.Linear | None = None):
        super().__init__()
        self.backbone = backbone
        self.readout = readout
        self.projection = projection

    @property
    def dimension(self) -> int:
        """D, the length of an output vector."""
        return self.projection.out_features if self.projection is not None else self.backbone.hidden_size

    def forward(self, layouts: Sequence[Layout]) -> Tensor:
        """Unit vectors `[N, D]` of all documents of all layouts, in the order of their numbers."""
        pooled = torch.cat([self._pool(layout) for layout in layouts])
        numbers = torch.tensor([number for layout in layouts for number in layout.documents])
        ordered_ND = pooled.index_select(0, numbers.argsort().to(pooled.device))
        if self.projection is not None:
            ordered_ND = self.projection(ordered_ND.to(self.projection.weight.dtype))
        return functional.normalize(ordered_ND, dim=-1)

    def _pool(self, layout: Layout) -> Tensor:
        vectors_ND = self.readout.pool(self.backbone(layout), layout.to(self.backbone.device))
        return vectors_ND if vectors_ND.dtype == torch.float64 else vectors_ND.float()
