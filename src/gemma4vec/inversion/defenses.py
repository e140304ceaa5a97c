"""What may be done to vectors before they are stored, so that they tell less of their texts.

Each defense keeps D dimensions, at unit length: what was cut is zero, what was projected is turned back. Inner products
are those of the shorter vectors, and an attacker that was fitted on clean vectors can read them.
Shapes: N vectors, D dimensions, K kept.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gemma4vec.text.text_embedder import Vectors

NOISE = (0.005, 0.01, 0.02, 0.05)  # standard deviation a dimension
CUTS = (2, 4, 8)  # a half, a quarter, an eighth of the dimensions
Apply = Callable[[Vectors, np.random.Generator], Vectors]


@dataclass(frozen=True)
class Defense:
    """A way to change vectors.

    Attributes:
        name: such as "noise .01".
        kind: `none`, `int8`, `binary`, `pca`, `prefix` or `noise`.
        apply: `[N, D]` unit vectors to `[N, D]` unit vectors; the generator is for noise.
    """

    name: str
    kind: str
    apply: Apply


def all_defenses(sample_ND: Vectors, trained_lengths: tuple[int, ...] = ()) -> list[Defense]:
    """Every defense for a model.

    Args:
        sample_ND: vectors of the collection, for the mean of `binary` and the directions of `pca`.
        trained_lengths: prefix lengths that the model was trained for; they are cut to as well.
    """
    dimension = sample_ND.shape[1]
    cuts = [dimension // part for part in CUTS if dimension // part >= 1]
    lengths = sorted({*cuts, *(length for length in trained_lengths if 0 < length < dimension)}, reverse=True)
    mean_D = sample_ND.mean(axis=0)
    directions_DD = principal_directions(sample_ND)
    return [
        Defense("none (fp32)", "none", lambda vectors_ND, _: vectors_ND),
        Defense("int8", "int8", lambda vectors_ND, _: int8(vectors_ND)),
        Defense("binary", "binary", lambda vectors_ND, _: unit(np.where(vectors_ND > mean_D, 1.0, -1.0))),
        *(Defense(f"PCA to {kept}", "pca", _projected(directions_DD[:, :kept])) for kept in dict.fromkeys(cuts)),
        *(Defense(f"prefix of {kept}", "prefix", _cut(kept)) for kept in lengths),
        *(Defense(f"noise {f'{sigma:g}'.lstrip('0')}", "noise", _noised(sigma)) for sigma in NOISE),
    ]


def unit(vectors_ND: np.ndarray) -> Vectors:
    """Rows divided by their lengths, float32; a row of zeros stays as it is."""
    lengths_N1 = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    return np.asarray(vectors_ND / np.where(lengths_N1 > 0, lengths_N1, 1.0), dtype=np.float32)


def int8(vectors_ND: Vectors) -> Vectors:
    """One byte a dimension and one scale a row, as vector stores keep them, read back."""
    scales_N1 = np.abs(vectors_ND).max(axis=1, keepdims=True) / 127
    scales_N1 = np.where(scales_N1 > 0, scales_N1, 1.0)
    return unit(np.rint(vectors_ND / scales_N1) * scales_N1)


def principal_directions(sample_ND: Vectors) -> Vectors:
    """The directions in which vectors vary most, first to last: the columns of `[D, D]`; the mean is not subtracted."""
    _, directions_DD = np.linalg.eigh((sample_ND.T @ sample_ND).astype(np.float64))
    return directions_DD[:, ::-1].astype(np.float32)


def _projected(directions_DK: Vectors) -> Apply:
    return lambda vectors_ND, _: unit(vectors_ND @ directions_DK @ directions_DK.T)


def _cut(kept: int) -> Apply:
    def cut(vectors_ND: Vectors, _: np.random.Generator) -> Vectors:
        found_ND = np.zeros_like(vectors_ND)
        found_ND[:, :kept] = vectors_ND[:, :kept]
        return unit(found_ND)

    return cut


def _noised(sigma: float) -> Apply:
    def noised(vectors_ND: Vectors, generator: np.random.Generator) -> Vectors:
        return unit(vectors_ND + sigma * generator.standard_normal(vectors_ND.shape, dtype=np.float32))

    return noised
