"""Triplet margin loss: a row's positive is to be nearer than its hard negatives, by a margin.

Shapes: N rows, K hard negatives a row, C = 1 + K candidates, D dimensions.
"""

from typing import Literal

from torch import Tensor
from torch.nn import functional

from gemma4vec.objective.matching import score_candidates
from gemma4vec.objective.row_mean import row_mean

TripletDistance = Literal["cosine", "l2"]


def triplet_margin(
    queries_ND: Tensor,
    positives_ND: Tensor,
    negatives_NKD: Tensor,
    *,
    margin: float = 0.2,
    distance: TripletDistance = "cosine",
    row_weights_N: Tensor | None = None,
) -> Tensor:
    """Mean of `max(0, d(query, positive) - d(query, negative) + margin)` over rows and their own hard negatives.

    Papers: FaceNet (Schroff et al. 2015, arXiv:1503.03832, eq. 3) with squared distances; Sentence-BERT (Reimers and
    Gurevych 2019, arXiv:1908.10084, section 3) with the distances themselves, as here.

    Inputs:
        | tensor | shape | content |
        |---|---|---|
        | `queries_ND` | `[N, D]` float | unit vectors of the anchors |
        | `positives_ND` | `[N, D]` float | unit vectors of their positives |
        | `negatives_NKD` | `[N, K, D]` float | unit vectors of their hard negatives, K at least 1 |
        | `row_weights_N` | `[N]` float, or None | weight of each row |

    Args:
        queries_ND, positives_ND, negatives_NKD, row_weights_N: see the table.
        margin: in units of the distance. Cosine distances are at most 2, Euclidean ones of unit vectors too.
        distance: 1 - cosine, or Euclidean (`l2`).

    Returns:
        A scalar; 0 where every negative is farther than the positive by the margin, and then without a gradient.

    Relations:
        Same as torch's `triplet_margin_loss` (`l2`) and `TripletMarginWithDistanceLoss` (`cosine`) for K = 1. Rows
        learn nothing from each other, unlike in `nce.nce`.

    Example:
        >>> import torch
        >>> query, near, far = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]]), torch.tensor([[[0.6, 0.8]]])
        >>> round(triplet_margin(query, near, far, margin=0.5).item(), 6)  # distances 0 and .4: .1 short of the margin
        0.1
    """
    if distance == "cosine":
        distances_NC = 1 - score_candidates(queries_ND, positives_ND, negatives_NKD)
        near_N, far_NK = distances_NC[:, 0], distances_NC[:, 1:]
    else:
        near_N = functional.pairwise_distance(queries_ND, positives_ND)  # finite gradient where both are equal
        far_NK = functional.pairwise_distance(queries_ND[:, None], negatives_NKD)
    return row_mean((near_N[:, None] - far_NK + margin).relu().mean(1), row_weights_N)
