"""The global orthogonal regulariser: vectors of different texts should be as far apart as random directions are.

Shapes: N vectors, D dimensions.
"""

from typing import Literal

import torch
from torch import Tensor

Form = Literal["second_moment", "spread_out"]


def gor(vectors_ND: Tensor, form: Form = "second_moment") -> Tensor:
    """How far the similarities of a batch's vectors are from those of random directions; a scalar.

    `second_moment`: their mean square, EmbeddingGemma's (arXiv:2509.20354, section 2.2), which sums it over queries and
    passages. `spread_out`: squared mean, plus the part of the mean square above 1/D, which random directions have
    (Zhang et al. 2017, arXiv:1708.06320). Equal texts do no harm: the gradient of two equal vectors is along
    themselves. A batch of one gives 0.

    Args:
        vectors_ND: unit vectors; at most min(N, D)^2 products of them are in memory.
        form: which of the two.
    """
    n, dimensions = vectors_ND.shape
    pairs = max(1, n * (n - 1))
    lengths_N = vectors_ND.square().sum(-1)  # all 1, but the gradient through them must go too
    # The matrix of similarities and that of second moments have the same sum of squares; take the smaller one.
    gram = vectors_ND @ vectors_ND.T if n <= dimensions else vectors_ND.T @ vectors_ND
    second_moment = (gram.square().sum() - lengths_N.square().sum()) / pairs
    if form == "second_moment":
        return second_moment
    mean = (vectors_ND.sum(0).square().sum() - lengths_N.sum()) / pairs
    return mean.square() + torch.relu(second_moment - 1.0 / dimensions)
