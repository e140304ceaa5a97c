"""How a model's vectors lie, each figure beside what random directions or random rankings give.

No figure is good or bad by itself: lower isotropy often goes with better rankings (Rudman & Eickhoff 2024, I-STAR).

Legend: n vectors, D dimensions, N queries, M documents.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
RESAMPLES = 200
GROUPS = 10  # of the jackknife
MOST = 2_000  # vectors of the figures that need all pairs
BASELINES = 20  # random rankings
TWO_NN_LEFT_OUT = 0.1  # share of the largest ratios
TWO_NN_LEAST = 20  # vectors


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        low, high: 95% interval; None where there is none.
        baseline: the same of `baseline_words`; None where there is none.
        n: vectors, queries or pairs that it rests on.
        source: the paper.
    """

    name: str
    words: str
    value: float
    low: float | None
    high: float | None
    baseline: float | None
    baseline_words: str
    n: int
    source: str

    def as_json(self) -> dict[str, Any]:
        """For inspection.json."""
        return asdict(self)


def document_figures(documents: npt.NDArray[np.floating], *, seed: int = 0) -> list[Figure]:
    """Figures of the documents' vectors alone.

    Args:
        documents: unit vectors, float[n, D], at least 20; a sample of a large corpus.
        seed: of subsamples, resamples and random directions.
    """
    generator = np.random.default_rng(seed)
    vectors_nD = np.asarray(documents, dtype=np.float64)
    random_nD = random_directions(len(vectors_nD), vectors_nD.shape[1], generator)
    few = np.sort(generator.permutation(len(vectors_nD))[:MOST])
    part_nD, random_part_nD = vectors_nD[few], random_nD[few]
    low, high = _bootstrap(partial(mean_cosines, vectors_nD), len(vectors_nD), generator)
    kernel, base_kernel = gaussian_kernel(part_nD), gaussian_kernel(random_part_nD)
    even_low, even_high = _bootstrap(partial(uniformities, kernel), len(part_nD), generator)
    dimension, dimension_low, dimension_high = two_nn(part_nD)
    n, few_n, of_random = len(vectors_nD), len(part_nD), "random directions"
    spread = spectrum_figures(vectors_nD, random_nD)
    return [
        Figure(
            "mean cosine",
            "mean cosine of two different documents",
            mean_cosine(vectors_nD),
            low,
            high,
            mean_cosine(random_nD),
            of_random,
            n,
            "Ethayarajh 2019, arXiv:1909.00512",
        ),
        *spread,
        Figure(
            "uniformity",
            "log of the mean of exp(-2 squared distance) over pairs of documents",
            uniformity(kernel),
            even_low,
            even_high,
            uniformity(base_kernel),
            of_random,
            few_n,
            "Wang & Isola 2020, arXiv:2005.10242",
        ),
        Figure(
            "intrinsic dimension",
            "TwoNN: from the ratio of the distances to the two nearest documents",
            dimension,
            dimension_low,
            dimension_high,
            two_nn(random_part_nD)[0],
            of_random,
            few_n,
            "Facco et al. 2017, arXiv:1803.06992",
        ),
    ]


def random_directions(n: int, dimension: int, generator: np.random.Generator) -> Floats:
    """Unit vectors without any direction, [n, D]."""
    drawn_nD = generator.normal(size=(n, dimension))
    return np.asarray(drawn_nD / np.linalg.norm(drawn_nD, axis=1, keepdims=True))


def mean_cosine(vectors_nD: Floats) -> float:
    """Mean cosine over all pairs of different vectors."""
    return float(mean_cosines(vectors_nD, np.ones((1, len(vectors_nD))))[0])


def mean_cosines(vectors_nD: Floats, weights_Bn: Floats) -> Floats:
    """The same for each row of weights, [B]: each vector counts as often as its weight says, never with itself."""
    totals_BD = weights_Bn @ vectors_nD
    squared_B = (weights_Bn**2).sum(axis=1)
    return np.asarray(((totals_BD**2).sum(axis=1) - squared_B) / (weights_Bn.sum(axis=1) ** 2 - squared_B))


def gaussian_kernel(vectors_nD: Floats) -> Floats:
    """exp(-2 squared distance) of all pairs of unit vectors, [n, n]."""
    return np.asarray(np.exp(4.0 * (np.clip(vectors_nD @ vectors_nD.T, -1.0, 1.0) - 1.0)))


def uniformity(kernel_nn: Floats) -> float:
    """Log of the kernel's mean over pairs of different vectors."""
    return float(uniformities(kernel_nn, np.ones((1, len(kernel_nn))))[0])


def uniformities(kernel_nn: Floats, weights_Bn: Floats) -> Floats:
    """The same for each row of weights, [B]."""
    squared_Bn = weights_Bn**2
    totals_B = ((weights_Bn @ kernel_nn) * weights_Bn).sum(axis=1) - squared_Bn @ np.diag(kernel_nn)
    pairs_B = weights_Bn.sum(axis=1) ** 2 - squared_Bn.sum(axis=1)
    return np.asarray(np.log(np.maximum(totals_B / pairs_B, 1e-300)))


def eigenvalues(covariance_DD: Floats) -> Floats:
    """Eigenvalues, [D], none below 0."""
    return np.asarray(np.clip(np.linalg.eigvalsh(covariance_DD), 0.0, None))


class Moments(NamedTuple):
    """Number, sum and sum of products of vectors: those of a part are the whole's minus the rest's."""

    n: int
    sum_D: Floats
    products_DD: Floats

    def without(self, other: "Moments") -> "Moments":
        """The moments of the other vectors."""
        return Moments(self.n - other.n, self.sum_D - other.sum_D, self.products_DD - other.products_DD)

    def covariance(self) -> Floats:
        """The covariance, [D, D]."""
        mean_D = self.sum_D / self.n
        return np.asarray(self.products_DD / self.n - np.outer(mean_D, mean_D))


def moments(vectors_nD: Floats) -> Moments:
    """The moments of vectors."""
    return Moments(len(vectors_nD), vectors_nD.sum(axis=0), vectors_nD.T @ vectors_nD)


def effective_rank(values_D: Floats) -> float:
    """exp of the entropy of the eigenvalues' shares; 1 to D."""
    shares_D = values_D[values_D > 0.0] / values_D.sum()
    return float(np.exp(-(shares_D * np.log(shares_D)).sum()))


def iso_score(covariance_DD: Floats) -> float:
    """IsoScore: 0 for one direction, 1 for a round cloud.

    The paper's steps reduce to the participation ratio (the eigenvalues' sum squared over their sum of squares, so
    traces suffice) as a share of D, moved to begin at 0.
    """
    participation = float(np.trace(covariance_DD) ** 2 / (covariance_DD**2).sum())
    return (participation - 1.0) / (len(covariance_DD) - 1.0)


def spectrum_figures(vectors_nD: Floats, random_nD: Floats) -> list[Figure]:
    """Effective rank, and IsoScore with a delete-a-group jackknife interval."""
    n, of = len(vectors_nD), "random directions"
    everything = moments(vectors_nD)
    whole_DD, random_DD = everything.covariance(), moments(random_nD).covariance()
    groups = [moments(vectors_nD[group::GROUPS]) for group in range(GROUPS)]
    parts = np.array([iso_score(everything.without(group).covariance()) for group in groups])
    value = iso_score(whole_DD)
    half = 1.96 * float(np.sqrt((GROUPS - 1) / GROUPS * ((parts - parts.mean()) ** 2).sum()))
    return [
        Figure(
            "effective rank",
            f"exp of the entropy of the covariance's spectrum, of {vectors_nD.shape[1]} dimensions; grows with n",
            effective_rank(eigenvalues(whole_DD)),
            None,
            None,
            effective_rank(eigenvalues(random_DD)),
            of,
            n,
            "Roy & Vetterli 2007; Garrido et al. 2023, arXiv:2210.02885",
        ),
        Figure(
            "IsoScore",
            "how round the cloud of documents is, 0 to 1",
            value,
            value - half,
            value + half,
            iso_score(random_DD),
            of,
            n,
            "Rudman et al. 2022, arXiv:2108.07344",
        ),
    ]


def two_nn(vectors_nD: Floats, *, seed: int = 0) -> tuple[float, float, float]:
    """Intrinsic dimension with a bootstrap interval over the vectors' ratios of distances.

    As in the paper, the slope of -log(1 - F) over log(ratio) through the origin, without the largest tenth of the
    ratios: near duplicates are there. Repeated vectors are left out. Not a number where fewer than 20 are left.
    """
    distances_nn = 2.0 - 2.0 * np.clip(vectors_nD @ vectors_nD.T, -1.0, 1.0)
    np.fill_diagonal(distances_nn, np.inf)
    nearest_n2 = np.sort(np.sqrt(np.maximum(np.partition(distances_nn, 1, axis=1)[:, :2], 0.0)), axis=1)
    kept = nearest_n2[:, 0] > 1e-6
    logarithms = np.log(nearest_n2[kept, 1] / nearest_n2[kept, 0])
    if len(logarithms) < TWO_NN_LEAST or not logarithms.any():
        return float("nan"), float("nan"), float("nan")
    drawn = np.random.default_rng(seed).integers(0, len(logarithms), (RESAMPLES, len(logarithms)))
    low, high = np.quantile(_slope(logarithms[drawn]), [0.025, 0.975])
    return float(_slope(logarithms[None])[0]), float(low), float(high)


def _slope(logarithms_Bn: Floats) -> Floats:
    """TwoNN's slope for each row of logarithms of ratios, [B]."""
    n = logarithms_Bn.shape[1]
    used = n - round(TWO_NN_LEFT_OUT * n)
    x_Bm = np.sort(logarithms_Bn, axis=1)[:, :used]
    y_m = -np.log1p(-np.arange(1, used + 1) / (n + 1))
    with np.errstate(invalid="ignore"):  # a resample of equal distances alone has no slope
        return np.asarray((x_Bm @ y_m) / (x_Bm**2).sum(axis=1))


def alignment(queries_ND: npt.NDArray[np.floating], right_ND: npt.NDArray[np.floating], *, seed: int = 0) -> Figure:
    """Mean squared distance of a query and its right document, beside random pairs of the same vectors.

    Args:
        queries_ND, right_ND: unit vectors of pairs, [N, D]; N at least 2.
    """
    squared_N = ((np.asarray(queries_ND, np.float64) - np.asarray(right_ND, np.float64)) ** 2).sum(axis=1)
    mixed = np.roll(np.random.default_rng(seed).permutation(len(right_ND)), 1)
    others_N = ((np.asarray(queries_ND, np.float64) - np.asarray(right_ND, np.float64)[mixed]) ** 2).sum(axis=1)
    error = float(squared_N.std(ddof=1) / np.sqrt(len(squared_N)))
    half = float(stats.t.ppf(0.975, len(squared_N) - 1)) * error
    mean = float(squared_N.mean())
    return Figure(
        "alignment",
        "mean squared distance of a query and its right document",
        mean,
        mean - half,
        mean + half,
        float(others_N.mean()),
        "a right document of another query",
        len(squared_N),
        "Wang & Isola 2020, arXiv:2005.10242",
    )


def hubness(top_NK: npt.NDArray[np.int64], documents: int, *, seed: int = 0) -> list[Figure]:
    """Skewness of how often documents are among first ranks, and the share that never are, beside random rankings."""
    generator = np.random.default_rng(seed)
    queries, places = len(top_NK), min(top_NK.shape[1], documents)
    value, never = occurrences(top_NK, documents)
    random_ranks = (
        np.array([generator.choice(documents, places, replace=False, shuffle=False) for _ in range(queries)])
        if documents <= 20 * places
        else generator.integers(0, documents, queries * places)
        for _ in range(BASELINES)
    )
    base, base_never = np.mean([occurrences(ranks, documents) for ranks in random_ranks], axis=0).tolist()
    resampled = (top_NK[generator.integers(0, queries, queries)] for _ in range(RESAMPLES))
    low, high = np.quantile([occurrences(ranks, documents)[0] for ranks in resampled], [0.025, 0.975])
    source, of = "Radovanović et al. 2010, JMLR 11", "random rankings"
    return [
        Figure(
            "hubness",
            f"skewness of how often a document is among the first {places}",
            value,
            float(low),
            float(high),
            base,
            of,
            queries,
            source,
        ),
        Figure(
            "never shown",
            f"share of documents that no query has among the first {places}",
            never,
            None,
            None,
            base_never,
            of,
            queries,
            source,
        ),
    ]


def occurrences(ranks: npt.NDArray[np.int64], documents: int) -> tuple[float, float]:
    """Skewness of how often each document is among ranks, and the share of documents that never are.

    Only documents that are there are counted one by one: of a million most never are. -1 is no document.
    """
    _, counts = np.unique(ranks[ranks >= 0], return_counts=True)
    mean, missing = counts.sum() / documents, documents - len(counts)
    second, third = (
        float(((counts - mean) ** power).sum() + missing * (-mean) ** power) / documents for power in (2, 3)
    )
    return third / second**1.5 if second > 0.0 else 0.0, missing / documents


def _bootstrap(statistics: Callable[[Floats], Floats], n: int, generator: np.random.Generator) -> tuple[float, float]:
    """Percentile interval of a statistic of weights, over resamples of n vectors."""
    weights_Bn = generator.multinomial(n, np.full(n, 1.0 / n), size=RESAMPLES).astype(np.float64)
    low, high = np.quantile(statistics(weights_Bn), [0.025, 0.975])
    return float(low), float(high)
