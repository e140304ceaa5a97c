"""Several comparisons at once: Holm's step-down correction."""

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the given order: reject those below alpha, and the chance of any false rejection is at most
    alpha, whatever the tests depend on (Holm 1979, "A simple sequentially rejective multiple test procedure").

    The k-th smallest of m is multiplied by m - k + 1; none falls below a smaller one's adjusted value, nor above 1.

    Raises:
        ValueError: a value outside 0 to 1.
    """
    wrong = [p for p in p_values if not 0.0 <= p <= 1.0]
    if wrong:
        raise ValueError(f"p-values lie between 0 and 1, got {wrong[0]}")
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = largest
    return adjusted
