"""Global orthogonal regularizer (GOR): spread vectors of different texts as far apart as random directions.

Shapes: N vectors, D dimensions.
"""

from typing import Literal

import torch
from torch import Tensor

Form = Literal["second_moment", "spread_out"]


def gor(vectors_ND: Tensor, form: Form = "second_moment") -> Tensor:
    """Penalize similarities between a batch's vectors that exceed those of random directions.

    Papers:
        `second_moment`: EmbeddingGemma (arXiv:2509.20354, section 2.2), the mean squared similarity over pairs i != j.
        EmbeddingGemma adds the terms of queries and of passages.
        `spread_out`: Zhang et al. 2017 (arXiv:1708.06320), `mean(s)^2 + max(0, mean(s^2) - 1/D)` over the same pairs.
        Random unit vectors have a mean of 0 and a mean square of 1/D.

    Inputs:
        | tensor | shape | content |
        |---|---|---|
        | `vectors_ND` | `[N, D]` float | unit vectors of N texts |

    Args:
        vectors_ND: see the table. At most min(N, D)^2 products are in memory.
        form: which of the two papers' terms.

    Returns:
        A scalar; 0 for a single vector.

    Relations:
        Add it to `nce.nce`; alone it ignores which texts belong together. Equal texts in a batch are harmless: the
        gradient of two equal unit vectors points along the vectors. `spread_out` equals sentence-transformers'
        GlobalOrthogonalRegularizationLoss.

    Example:
        >>> import torch
        >>> gor(torch.eye(3)).item()  # orthogonal vectors
        0.0
        >>> gor(torch.tensor([[1.0, 0.0], [1.0, 0.0]])).item()  # one direction
        1.0
    """
    n, dimensions = vectors_ND.shape
    pairs = max(1, n * (n - 1))
    lengths_N = vectors_ND.square().sum(-1)  # all 1, but their gradient must be subtracted too
    # The N x N matrix of similarities and the D x D matrix of second moments have the same sum of squares.
    gram = vectors_ND @ vectors_ND.T if n <= dimensions else vectors_ND.T @ vectors_ND
    second_moment = (gram.square().sum() - lengths_N.square().sum()) / pairs
    if form == "second_moment":
        return second_moment
    mean = (vectors_ND.sum(0).square().sum() - lengths_N.sum()) / pairs
    return mean.square() + torch.relu(second_moment - 1.0 / dimensions)
