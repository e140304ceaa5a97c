"""The mean over a batch's rows, which need not all weigh the same.

Shapes: N rows.
"""

from torch import Tensor


def row_mean(values_N: Tensor, row_weights_N: Tensor | None = None) -> Tensor:
    """Mean of `weight * value` over rows; None: every weight is 1.

    A row of weight 0 has exactly no gradient, even where its value is not finite.
    """
    if row_weights_N is None:
        return values_N.mean()
    weights_N = row_weights_N.to(values_N)
    return (values_N.masked_fill(weights_N == 0, 0.0) * weights_N).mean()
