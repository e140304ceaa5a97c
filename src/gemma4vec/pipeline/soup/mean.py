"""The weighted mean of models, block by block, and the geometry of their changes from a common start.

Each value is computed in float64 and rounded to fp32 once. A tensor that is equal in all models stays as it is.
N models.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from gemma4vec.errors import InputError
from gemma4vec.pipeline.soup.tensors import Key, TensorFolder, row_ranges

TOLERANCE = 1e-6  # of the sum of given weights


@dataclass(frozen=True)
class Deltas:
    """The changes of N models from their common start, all weights of a model as one vector.

    Attributes:
        gram_NN: inner products of the changes, float64[N, N].
        left_out: number of tensors that the start lacks, such as those of a new head; they are not in the products.
    """

    gram_NN: NDArray[Any]
    left_out: int

    @property
    def norms(self) -> list[float]:
        """The Euclidean norm of each change, N values."""
        return [math.sqrt(max(0.0, float(value))) for value in self.gram_NN.diagonal()]

    @property
    def cosines(self) -> list[list[float | None]]:
        """The cosine of each pair of changes, N rows of N values; None where a model has not changed."""
        norms = self.norms
        return [
            [
                float(self.gram_NN[i, j]) / (norms[i] * norms[j]) if norms[i] and norms[j] else None
                for j in range(len(norms))
            ]
            for i in range(len(norms))
        ]

    def norm_of(self, weights: Sequence[float]) -> float:
        """The norm of the change of the weighted mean: the square root of w'Gw."""
        return math.sqrt(max(0.0, sum(w * v * float(self.gram_NN[i, j]) for i, w in enumerate(weights)
                                      for j, v in enumerate(weights))))  # fmt: skip

    def shrinkage(self, weights: Sequence[float], norm: float | None = None) -> float | None:
        """The norm of the soup's change over the mean norm of its ingredients' changes; None if nothing changed.

        Equal changes give 1, orthogonal ones of equal norm 1 / sqrt(N).

        Args:
            weights: N weights; models of weight 0, and those that have not changed, are not in the mean.
            norm: of the soup's change; None: that of the weighted mean.
        """
        norms = [norm for norm, weight in zip(self.norms, weights, strict=True) if weight and norm]
        return (self.norm_of(weights) if norm is None else norm) / (sum(norms) / len(norms)) if norms else None


def equal_weights(count: int) -> list[float]:
    """Weights of the plain mean."""
    return [1.0 / count] * count


def check_weights(weights: Sequence[float], names: Sequence[str]) -> list[float]:
    """Return given weights, scaled to a sum of exactly one where they miss it by rounding.

    Raises:
        InputError: another number of weights, one that is not above 0, or another sum than one.
    """
    if len(weights) != len(names):
        raise InputError(f"--weights has {len(weights)} numbers for {len(names)} ingredients; give one for each")
    for name, weight in zip(names, weights, strict=True):
        if not math.isfinite(weight) or weight <= 0:
            raise InputError(f"--weights: {name} has {weight:g}; give a number above 0, or leave the ingredient out")
    total = math.fsum(weights)
    if abs(total - 1.0) > TOLERANCE:
        raise InputError(f"--weights sum to {total:g}; they must sum to 1")
    return [weight / total for weight in weights]


def mean_blocks(models: Sequence[TensorFolder], weights: Sequence[float], key: Key) -> Iterator[Tensor]:
    """Yield the blocks of rows of the weighted mean of a tensor, fp32 where it holds weights.

    Args:
        models: N models that all have the tensor; those of weight 0 are not read.
        weights: N weights whose sum is one.
        key: the tensor.

    Raises:
        InputError: a tensor of indices or flags differs between models.
    """
    used = [(model, weight) for model, weight in zip(models, weights, strict=True) if weight]
    place = used[0][0].places[key]
    for start, stop in row_ranges(place.shape):
        blocks = [model.rows(key, start, stop) for model, _ in used]
        same = all(_equal(blocks[0], block) for block in blocks[1:])
        if not place.is_float and not same:
            raise InputError(f"{key} is no weight and differs between the ingredients, so it has no mean")
        if same:
            yield blocks[0].float() if place.is_float else blocks[0]
            continue
        total = torch.zeros(blocks[0].shape, dtype=torch.float64)
        for (_, weight), block in zip(used, blocks, strict=True):
            total.add_(block.double(), alpha=weight)
        yield total.float()


def measure_deltas(models: Sequence[TensorFolder], names: Sequence[str], start: TensorFolder | None) -> Deltas | None:
    """Measure the changes of N models from their start; on the way, refuse weights that are not finite.

    Args:
        models: N models of the same tensors.
        names: what messages call them.
        start: the tensors of the start under the same keys; None if it is not there: only the check is made.

    Raises:
        InputError: a weight is NaN or infinite; the line names the model and the tensor.
    """
    gram_NN = torch.zeros(len(models), len(models), dtype=torch.float64)
    left_out = 0
    for key, place in models[0].places.items():
        if not place.is_float:
            continue
        known = start is not None and key in start.places
        left_out += not known
        for begin, end in row_ranges(place.shape):
            blocks = [model.rows(key, begin, end).double().flatten() for model in models]
            for name, block in zip(names, blocks, strict=True):
                _check_finite(name, key, block)
            if start is not None and known:
                origin = start.rows(key, begin, end).double().flatten()
                changes = [block.sub_(origin) for block in blocks]
                for i, change in enumerate(changes):
                    for j in range(i + 1):
                        gram_NN[i, j] += torch.dot(change, changes[j])
    if start is None or left_out == len(models[0].places):
        return None
    return Deltas((gram_NN + gram_NN.tril(-1).T).numpy(), left_out)


def _equal(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one, other) if one.dtype == other.dtype else torch.equal(one.double(), other.double())


def _check_finite(name: str, key: Key, block: Tensor) -> None:
    if not torch.isfinite(block).all():
        raise InputError(
            f"{name}: {key} holds weights that are NaN or infinite; leave this ingredient out, or train it again"
        )
