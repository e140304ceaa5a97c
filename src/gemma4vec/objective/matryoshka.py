"""Matryoshka representation learning: train prefixes of a vector to be good vectors themselves.

Shapes: N vectors, D dimensions of a whole vector, d of a prefix.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from gemma4vec.errors import InputError


def prefix(vectors: Tensor, dimensions: int) -> Tensor:
    """Cut each unit vector `[..., D]` to its first `dimensions` values and normalize it: `[..., d]`.

    Example:
        >>> import torch
        >>> prefix(torch.tensor([0.6, 0.0, 0.8]), 2)
        tensor([1., 0.])
    """
    if dimensions == vectors.shape[-1]:  # no copy: it would be the largest tensor that a loss in blocks keeps
        return vectors
    return functional.normalize(vectors[..., :dimensions], dim=-1)


def matryoshka(
    loss: Callable[..., Tensor],
    vectors: Sequence[Tensor | None],
    dimensions: Sequence[int],
    weights: Sequence[float] | None = None,
) -> Tensor:
    """Sum a loss over nested prefixes of the vectors, each prefix normalized.

    Paper: Kusupati et al. 2022 (arXiv:2205.13147), eq. 1: the weighted sum over prefix lengths d of the loss on the
    first d dimensions.

    Inputs:
        | argument | shape | content |
        |---|---|---|
        | `vectors[i]` | `[..., D]` float | unit vectors, passed to the loss as its i-th argument; or None |

    Args:
        loss: takes as many tensors as there are `vectors`, returns a scalar.
        vectors: see the table; None is passed on as None.
        dimensions: lengths of the prefixes, in any order. Include D to train the whole vector.
        weights: weight of each prefix; 1 each for None.

    Returns:
        A scalar.

    Raises:
        InputError: there is no prefix, one is longer than the vectors, or the number of weights differs.

    Relations:
        Wraps any loss of this package. Same as sentence-transformers' MatryoshkaLoss.

    Example:
        >>> import torch
        >>> from gemma4vec.objective.gor import gor
        >>> vectors = torch.tensor([[0.6, 0.8], [0.8, 0.6]])
        >>> torch.allclose(matryoshka(gor, [vectors], [2, 1]), gor(vectors) + 1.0)  # both prefixes of length 1 are [1]
        True
    """
    check_dimensions(dimensions, next(v.shape[-1] for v in vectors if v is not None))
    factors = list(weights) if weights is not None else [1.0] * len(dimensions)
    if len(factors) != len(dimensions):
        raise InputError(f"{len(factors)} weights for {len(dimensions)} Matryoshka dimensions; give one for each")
    values = [loss(*(v if v is None else prefix(v, d) for v in vectors)) for d in dimensions]
    return torch.stack([factor * value for factor, value in zip(factors, values, strict=True)]).sum()


def check_dimensions(dimensions: Sequence[int], whole: int, key: str = "matryoshka") -> None:
    """Check the lengths of prefixes against the length of the whole vector.

    Args:
        dimensions: lengths of the prefixes.
        whole: length of the whole vector.
        key: the recipe key that the error message names.

    Raises:
        InputError: there is no prefix, or one is longer than the whole vector.
    """
    if not dimensions:
        raise InputError(f"{key}: name at least one dimension, at most {whole}")
    if max(dimensions) > whole:
        raise InputError(f"{key}: {max(dimensions)} is above the model's {whole} dimensions; give at most {whole}")
