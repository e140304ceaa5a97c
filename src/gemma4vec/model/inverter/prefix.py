"""A vector as soft tokens: what a decoder reads in place of a prompt's embeddings.

As the zero-step model of vec2text (Morris et al. 2023, arXiv:2310.06816, section 4), with one difference: the soft
tokens have the size of the base's own embeddings, whatever the layers' weights are.

Shapes: N vectors, d their dimensions, P soft tokens, D hidden size of the base.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Prefix(nn.Module):
    """Two linear layers with a GELU between: `[N, d]` to `[N, P, D]`, each soft token of root mean square `size`."""

    size: Tensor

    def __init__(self, dimension: int, tokens: int, width: int, *, hidden: int | None, size: float, seed: int = 0):
        """Make new layers.

        Args:
            dimension: d.
            tokens: P.
            width: D.
            hidden: width between the layers; None: D.
            size: root mean square of the base's embeddings as they enter its first layer.
            seed: initial values depend on it alone.
        """
        super().__init__()
        self.tokens, self.width = tokens, width
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.enter = nn.Linear(dimension, hidden or width)
            self.leave = nn.Linear(hidden or width, tokens * width)
        self.register_buffer("size", torch.tensor(float(size)))

    @property
    def dimension(self) -> int:
        """d."""
        return int(self.enter.in_features)

    @property
    def hidden(self) -> int:
        """Width between the layers."""
        return int(self.enter.out_features)

    def forward(self, vectors_Nd: Tensor) -> Tensor:
        """Soft tokens `[N, P, D]`. Unit vectors are scaled to a root mean square of 1 first."""
        scaled_Nd = vectors_Nd * self.dimension**0.5
        raw_NPD = self.leave(functional.gelu(self.enter(scaled_Nd))).view(-1, self.tokens, self.width)
        return functional.rms_norm(raw_NPD, (self.width,)) * self.size
