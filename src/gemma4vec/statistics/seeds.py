"""Intervals over seeds and queries: does the recipe win, or only these runs of it?

Training the same recipe with another seed gives another model. A claim about recipes has to survive both another
sample of queries and another set of seeds. Every run answers the same queries, so seeds and queries are crossed and
not nested: a query that is easy is easy in all runs. The bootstrap here resamples both sides on their own (Owen
2007, "The Pigeonhole Bootstrap"), from the additive effects of a two-way layout, each scaled so that its resampled
variance is the unbiased one:

    score_rn = mean + run_r + query_n + residual_rn

The spread of a few run means already holds the residuals' share, and so does that of the query means; it is taken out
once. Plain pigeonhole resampling of the scores would count it three times.

The p-value next to the interval has the same standard error. Its parts (queries, runs) have degrees of freedom of
their own and are combined as `combined_error` says; those of the runs of two recipes are Welch's. The residuals' share
is taken out of the error but not out of the parts' shares, since subtracting makes an estimate no more certain.

With fewer than 6 runs it makes no claim about seeds. A sign-flip test of 5 pairs cannot reach p < .05, and a
spread of 5 figures is a guess: the interval then resamples queries only, keeps the runs as they are, and says so. It
does the same where the runs are no sample of the recipe's runs, such as the best six of ten.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from gemma4vec.statistics.combined_error import CombinedError
from gemma4vec.statistics.stratified import Floats, singleton_note, standard_error, stratify, variance_of

MIN_RUNS = 6  # 2 / 2^6 < .05 < 2 / 2^5
RESAMPLES_PER_BLOCK = 1000
FEW_SEEDS = (
    f"with fewer than {MIN_RUNS} seeds this speaks only of these runs; another seed may move the result further than "
    "the interval is wide"
)


@dataclass(frozen=True)
class SeedInterval:
    """A mean over runs and queries with its interval.

    Attributes:
        mean: mean over runs of the mean over strata of the strata's means (difference A - B where B was given).
        low, high: bootstrap interval at `confidence`.
        runs: runs of A, and of B where there are any.
        queries: number of queries.
        run_sds: standard deviation of the runs' means (unbiased; 0 with one run), of A and of B.
        over_seeds: whether seeds were resampled, so that the interval speaks of the recipe and not of these runs only.
        statement: one sentence to print next to it.
        uncertainty: standard error of the mean, over queries and seeds, or over queries alone.
        p: two-sided p for a mean of zero; 1 where nothing varies.
        note: caveat, or an empty string.
    """

    mean: float
    low: float
    high: float
    confidence: float
    runs: tuple[int, ...]
    queries: int
    run_sds: tuple[float, ...]
    over_seeds: bool
    statement: str
    uncertainty: CombinedError
    p: float
    note: str = ""


@dataclass(frozen=True)
class _Effects:
    """One side's deviations in the mean: of its runs, [R], and of its queries, [N], with the residuals' variance."""

    mean: float
    run_means_R: Floats
    query_means_N: Floats
    residual_variance: float


def seed_interval(
    scores_a_RN: npt.ArrayLike,
    scores_b_RN: npt.ArrayLike | None = None,
    strata: Sequence[str] | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
    no_sample: str = "",
) -> SeedInterval:
    """Interval for recipe A, or for A - B, over seeds and queries; over queries alone with fewer than 6 runs of either.

    The runs of A and B are independent (another seed each). Where they are pairs (same seed and batches for both)
    pass their differences as A alone.

    Args:
        scores_a_RN: one row per run of A, one column per query, [R, N].
        scores_b_RN: the same queries under the runs of B, [R', N], or None.
        strata: task of each query, or None for a plain mean.
        confidence: coverage that the interval aims at, between 0 and 1.
        resamples: bootstrap resamples, at least 100.
        seed: the same seed gives the same interval.
        no_sample: why these runs are no sample of the recipe's runs, in words that fit after "since"; the interval
            then keeps the runs as they are, however many there are.

    Raises:
        ValueError: other than two-dimensional finite scores, other queries in B than in A, `confidence` outside (0, 1),
            fewer than 100 resamples.
    """
    if not 0.0 < confidence < 1.0 or resamples < 100:
        raise ValueError(f"confidence must be in (0, 1) and resamples at least 100, got {confidence} and {resamples}")
    sides = [_effects(scores_a_RN, strata)]
    if scores_b_RN is not None:
        sides.append(_effects(scores_b_RN, strata))
        if sides[1].query_means_N.size != sides[0].query_means_N.size:
            raise ValueError("A and B have scores of different numbers of queries")
    query_N = sides[0].query_means_N - sides[1].query_means_N if len(sides) == 2 else sides[0].query_means_N
    runs = tuple(side.run_means_R.size for side in sides)
    over_seeds = min(runs) >= MIN_RUNS and not no_sample
    mean = sides[0].mean - (sides[1].mean if len(sides) == 2 else 0.0)

    generator = np.random.default_rng(seed)
    deviations_B, variance, freedom = _query_deviations(query_N, strata, resamples, generator)
    parts, freedoms = [variance], [freedom]
    if over_seeds:
        squares = []
        for sign, side in zip((1.0, -1.0), sides, strict=False):
            of_runs_B, run_variance, mean_square = _run_deviations(side, resamples, generator)
            deviations_B += sign * of_runs_B
            variance += run_variance
            squares.append(mean_square)
        parts.append(sum(squares))
        freedoms.append(_welch(squares, runs))
    uncertainty = _combine(variance, parts, freedoms)
    low, high = _limits(deviations_B, mean, uncertainty, confidence)
    run_sds = tuple(run_sd(side.run_means_R) for side in sides)
    return SeedInterval(
        mean,
        low,
        high,
        confidence,
        runs,
        query_N.size,
        run_sds,
        over_seeds,
        _statement(runs, run_sds, over_seeds, no_sample),
        uncertainty,
        uncertainty.p(mean),
        singleton_note(stratify(query_N, strata)),
    )


def _welch(squares: Sequence[float], runs: Sequence[int]) -> float:
    """Welch's degrees of freedom of a sum of the variances of means over runs; 0 if all are 0."""
    shares = sum(square**2 / (count - 1) for square, count in zip(squares, runs, strict=True))
    return sum(squares) ** 2 / shares if shares else 0.0


def _combine(variance: float, parts: Sequence[float], freedoms: Sequence[float]) -> CombinedError:
    total = sum(parts)
    if variance == 0.0 or total == 0.0:
        return CombinedError(0.0, (), ())
    return CombinedError(math.sqrt(variance), tuple(part / total for part in parts), tuple(freedoms))


def run_sd(run_means_R: npt.ArrayLike) -> float:
    """Standard deviation of runs' mean scores between seeds of one recipe (n - 1 in the denominator); 0 for one run."""
    means_R = np.asarray(run_means_R, dtype=np.float64)
    return float(means_R.std(ddof=1)) if means_R.size > 1 else 0.0


def _effects(scores_RN: npt.ArrayLike, strata: Sequence[str] | None) -> _Effects:
    """Additive effects of a two-way layout, weighted as the mean over strata weights queries."""
    x_RN = np.asarray(scores_RN, dtype=np.float64)
    if x_RN.ndim != 2 or x_RN.shape[0] == 0:
        raise ValueError(f"expected scores of shape [runs, queries], got {x_RN.shape}")
    weights_N = stratify(x_RN[0], strata).weights
    if not np.isfinite(x_RN).all():
        raise ValueError("some scores are not finite")
    runs, n = x_RN.shape
    run_means_R = x_RN @ weights_N
    query_means_N = x_RN.mean(axis=0)
    mean = float(run_means_R.mean())
    if runs < 2 or n < 2:
        return _Effects(mean, run_means_R, query_means_N, 0.0)
    # What is left of a run on a query after both effects, as a variance of the run's weighted mean.
    left_RN = x_RN - query_means_N
    left_RN = left_RN - left_RN @ weights_N[:, None]
    residual = float((left_RN**2 @ weights_N**2).sum()) / (runs - 1)
    return _Effects(mean, run_means_R, query_means_N, residual)


def _query_deviations(
    query_N: Floats, strata: Sequence[str] | None, resamples: int, generator: np.random.Generator
) -> tuple[Floats, float, float]:
    """Deviations of the resampled mean over queries, [resamples], their variance and its degrees of freedom."""
    sample = stratify(query_N, strata)
    error, freedom = standard_error(sample)
    deviations_B = np.zeros(resamples)
    for members in sample.members:
        if members.size > 1:
            scale = math.sqrt(members.size / (members.size - 1)) / len(sample.members)
            centered = (query_N[members] - query_N[members].mean()) * scale
            deviations_B += _resampled_means(centered, resamples, generator)
    return deviations_B, error**2, freedom


def _run_deviations(side: _Effects, resamples: int, generator: np.random.Generator) -> tuple[Floats, float, float]:
    """Deviations of the resampled mean over runs, without the residuals' share, [resamples]; their variance; and the
    variance with the residuals' share, whose degrees of freedom are known."""
    runs = side.run_means_R.size
    spread = variance_of(side.run_means_R)
    own = max(0.0, spread - side.residual_variance)
    if own == 0.0:
        return np.zeros(resamples), 0.0, spread / runs
    centered = (side.run_means_R - side.mean) * math.sqrt(own / spread * runs / (runs - 1))
    return _resampled_means(centered, resamples, generator), own / runs, spread / runs


def _resampled_means(values_K: Floats, resamples: int, generator: np.random.Generator) -> Floats:
    """Means of bootstrap resamples, [resamples]; memory is bounded by blocks."""
    means_B = np.empty(resamples)
    for start in range(0, resamples, RESAMPLES_PER_BLOCK):
        rows = min(RESAMPLES_PER_BLOCK, resamples - start)
        drawn = generator.integers(0, values_K.size, size=(rows, values_K.size), dtype=np.int32)
        means_B[start : start + rows] = values_K[drawn].mean(axis=1)
    return means_B


def _limits(deviations_B: Floats, mean: float, uncertainty: CombinedError, confidence: float) -> tuple[float, float]:
    """Percentiles, read as far out as the t quantile of this uncertainty is further out than the normal.

    Hesterberg 2015, "What Teachers Should Know About the Bootstrap", section 5.3: expanded percentiles. Reflected at
    the mean would be the "basic" interval; percentiles keep the side on which the scores are skewed.
    """
    if uncertainty.error == 0.0 or not deviations_B.any():
        return mean, mean
    tail = float(ndtr(-uncertainty.critical((1.0 - confidence) / 2.0)))
    low, high = np.quantile(deviations_B, [tail, 1.0 - tail])
    return mean + float(low), mean + float(high)


def _statement(runs: tuple[int, ...], run_sds: tuple[float, ...], over_seeds: bool, no_sample: str) -> str:
    """Say what the interval covers."""
    count = " and ".join(str(number) for number in runs)
    if over_seeds:
        return f"over {count} seeds and the queries: speaks of the recipe"
    spread = " and ".join(f"{sd:.4f}" if number > 1 else "unknown" for number, sd in zip(runs, run_sds, strict=True))
    known = f" (their means have a standard deviation of {spread})" if max(runs) > 1 else ""
    word = "run" if runs == (1,) else "runs"
    if no_sample:
        return f"{count} {word}{known}: this speaks only of these runs and not of the recipe, since {no_sample}"
    return f"{count} {word}{known}: {FEW_SEEDS}"
