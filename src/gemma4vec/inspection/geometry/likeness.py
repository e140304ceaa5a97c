"""How alike two models are: first ten documents, rankings, and the vectors' geometry.

Legend: N queries, K ranks, n vectors, D dimensions.
"""

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
PERSISTENCE = 0.9  # of RBO: the first ten ranks have 86% of the weight


def overlap(one_NK: Ints, other_NK: Ints) -> Floats:
    """Share of the first K documents that two rankings have in common, for every query, float64[N]; -1 is no document.

    The larger number of documents is the denominator, so that a shorter ranking is not flattered; 1 for two empty ones.
    """
    return np.array([_agreement(one, other) for one, other in zip(one_NK.tolist(), other_NK.tolist(), strict=True)])


def rbo(one_NK: Ints, other_NK: Ints, p: float = PERSISTENCE) -> Floats:
    """Rank-biased overlap of every query, float64[N], extrapolated from K ranks (Webber et al. 2010, equation 32).

    Raises:
        ValueError: a persistence that is not between 0 and 1.
    """
    if not 0.0 < p < 1.0:
        raise ValueError(f"expected a persistence between 0 and 1, got {p}")
    found = []
    for one, other in zip(one_NK.tolist(), other_NK.tolist(), strict=True):
        depths = range(1, len(one) + 1)
        agreements = [_agreement(one[:depth], other[:depth]) for depth in depths]
        summed = sum(agreement * p**depth for depth, agreement in zip(depths, agreements, strict=True))
        found.append(agreements[-1] * p ** len(one) + (1.0 - p) / p * summed)
    return np.array(found)


def debiased_cka(one_nD: npt.NDArray[np.floating], other_nE: npt.NDArray[np.floating]) -> float:
    """Linear CKA with unbiased HSIC (Kornblith et al. 2019, arXiv:1905.00414; Song et al. 2012; Nguyen et al. 2021).

    0 on average for unrelated vectors, however few there are; 1 where one is the other turned, scaled or shifted.

    Args:
        one_nD, other_nE: vectors of the same n texts, at least 4.

    Raises:
        ValueError: fewer than 4 texts, or different numbers.
    """
    n = len(one_nD)
    if n < 4 or len(other_nE) != n:
        raise ValueError(f"expected vectors of the same texts, at least 4, got {n} and {len(other_nE)}")
    k_nn, l_nn = (_gram(np.asarray(vectors, dtype=np.float64)) for vectors in (one_nD, other_nE))
    scale = np.sqrt(max(_hsic(k_nn, k_nn), 0.0) * max(_hsic(l_nn, l_nn), 0.0))
    return float(_hsic(k_nn, l_nn) / scale) if scale > 0.0 else 0.0


def _agreement(one: list[int], other: list[int]) -> float:
    a, b = ({document for document in ranks if document >= 0} for ranks in (one, other))
    return len(a & b) / max(len(a), len(b)) if a or b else 1.0


def _gram(vectors_nD: Floats) -> Floats:
    """Inner products of centered vectors, with a diagonal of zeros."""
    centered_nD = vectors_nD - vectors_nD.mean(axis=0)
    gram_nn: Floats = centered_nD @ centered_nD.T
    np.fill_diagonal(gram_nn, 0.0)
    return gram_nn


def _hsic(k_nn: Floats, l_nn: Floats) -> float:
    """The unbiased estimate (Song et al. 2012, equation 5) of matrices without a diagonal."""
    n = len(k_nn)
    of_k, of_l = k_nn.sum(axis=0), l_nn.sum(axis=0)
    whole = float((k_nn * l_nn).sum())
    product = float(of_k.sum() * of_l.sum()) / ((n - 1) * (n - 2))
    return (whole + product - 2.0 * float(of_k @ of_l) / (n - 2)) / (n * (n - 3))
