"""Matryoshka representation learning (Kusupati et al. 2022, arXiv:2205.13147): short prefixes are good vectors too.

Shapes: N vectors, D dimensions of the whole, d of a prefix.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from gemma4vec.errors import InputError


def prefix(vectors: Tensor, dimensions: int) -> Tensor:
    """The first `dimensions` values of each unit vector `[..., D]`, at unit length again: `[..., d]`.

    All D of them are what they were: a copy of a batch's vectors is the largest thing that a loss in blocks keeps.
    """
    if dimensions == vectors.shape[-1]:
        return vectors
    return functional.normalize(vectors[..., :dimensions], dim=-1)


def matryoshka(
    loss: Callable[..., Tensor],
    vectors: Sequence[Tensor | None],
    dimensions: Sequence[int],
    weights: Sequence[float] | None = None,
) -> Tensor:
    """The weighted sum of `loss(*vectors)` over nested prefixes of the vectors, each renormalised.

    Args:
        loss: of any number of tensors `[..., D]`, to a scalar.
        vectors: unit vectors that it is of; None stays None.
        dimensions: lengths of the prefixes, the whole vector among them where it counts; no order is needed.
        weights: of each prefix; 1 each by default (arXiv:2205.13147, eq. 1).

    Raises:
        InputError: a prefix is longer than the vectors, there is none, or weights do not fit.
    """
    check_dimensions(dimensions, next(v.shape[-1] for v in vectors if v is not None))
    factors = list(weights) if weights is not None else [1.0] * len(dimensions)
    if len(factors) != len(dimensions):
        raise InputError(f"{len(factors)} weights for {len(dimensions)} Matryoshka dimensions; give one for each")
    values = [loss(*(v if v is None else prefix(v, d) for v in vectors)) for d in dimensions]
    return torch.stack([factor * value for factor, value in zip(factors, values, strict=True)]).sum()


def check_dimensions(dimensions: Sequence[int], whole: int, key: str = "matryoshka") -> None:
    """Refuse prefixes that a model cannot have; `key` names them in the complaint.

    Raises:
        InputError: one is longer than the whole vector, or there is none.
    """
    if not dimensions:
        raise InputError(f"{key}: name at least one dimension, at most {whole}")
    if max(dimensions) > whole:
        raise InputError(f"{key}: {max(dimensions)} is above the model's {whole} dimensions; give at most {whole}")
