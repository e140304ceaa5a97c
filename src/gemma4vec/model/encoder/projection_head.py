"""The projection head: linear layers between the readout and normalization.

EmbeddingGemma has two without an activation between them, [3072, 768] (arXiv:2509.20354, section 2.1): they express no
more than one linear map, but train differently. Gemma-Embed has one, to 256 dimensions.
"""

from torch import nn

from gemma4vec.recipe import schema


class Head(nn.Sequential):
    """Maps `[N, width]` to `[N, dimension]` by a sequence of linear layers."""

    def __init__(self, width: int, settings: schema.Head):
        layers = []
        for out in settings.widths:
            layers.append(nn.Linear(width, out, bias=settings.bias))
            width = out
        super().__init__(*layers)
        self.dimension = width

    @property
    def layers(self) -> list[nn.Linear]:
        """The linear layers, first to last."""
        return [layer for layer in self if isinstance(layer, nn.Linear)]
