"""Linear layers between the readout and unit length.

None: the readout's own dimension. EmbeddingGemma has two without an activation between them, [3072, 768]
(arXiv:2509.20354, section 2.1): one linear map in what it can say, but not in how it is trained. Gemma-Embed has one to
256 dimensions.
"""

from torch import nn

from gemma4vec.recipe import schema


class Head(nn.Sequential):
    """`[N, in]` to `[N, out]`, linear layer after linear layer."""

    def __init__(self, width: int, settings: schema.Head):
        layers = []
        for out in settings.widths:
            layers.append(nn.Linear(width, out, bias=settings.bias))
            width = out
        super().__init__(*layers)
        self.dimension = width

    @property
    def layers(self) -> list[nn.Linear]:
        """First to last."""
        return [layer for layer in self if isinstance(layer, nn.Linear)]
