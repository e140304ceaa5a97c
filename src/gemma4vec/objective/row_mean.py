"""Weighted mean of a batch's rows.

Shapes: N rows.
"""

from torch import Tensor


def row_mean(values_N: Tensor, row_weights_N: Tensor | None = None) -> Tensor:
    """Return the sum of `weight * value` over rows, divided by N; all weights are 1 for None.

    The divisor is N and not the sum of the weights, so that doubling all weights doubles the result. A row of weight 0
    has exactly no gradient, even if its value is not finite.
    """
    if row_weights_N is None:
        return values_N.mean()
    weights_N = row_weights_N.to(values_N)
    return (values_N.masked_fill(weights_N == 0, 0.0) * weights_N).mean()
