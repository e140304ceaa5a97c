"""Smallest detectable difference for a number of queries: next to a verdict, or before training.

All three functions solve the power function of the non-central t distribution (Cohen 1988, "Statistical Power
Analysis", chapter 2). The sign-flip test on means has nearly the same power: asymptotically it is the t-test (Lehmann
& Romano 2005, section 15.2). A smaller true difference can be found too, only less often than `power` says.
"""

import math
from collections.abc import Sequence

import numpy.typing as npt
import scipy  # its parts are imported when they are used: scipy.stats takes most of a second

from gemma4vec.statistics.combined_error import CombinedError
from gemma4vec.statistics.stratified import standard_error, stratify


def smallest_detectable_difference(sd: float, n: int, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Mean difference that a two-sided paired t-test at level `alpha` finds with probability `power`.

    Args:
        sd: standard deviation of the per-query differences (n - 1 in the denominator).
        n: number of queries.

    Returns:
        The difference in the unit of `sd`; infinity with fewer than 2 queries; 0 when `sd` is 0.

    Raises:
        ValueError: a negative or non-finite `sd`, or `alpha` or `power` outside (0, 1).
    """
    if not (math.isfinite(sd) and sd >= 0.0 and 0.0 < alpha < 1.0 and alpha < power < 1.0):
        raise ValueError(f"expected sd >= 0 and 0 < alpha < power < 1, got sd={sd}, alpha={alpha}, power={power}")
    if n < 2:
        return math.inf
    return _detectable(sd / math.sqrt(n), n - 1, alpha, power)


def smallest_detectable(
    differences: npt.ArrayLike,
    strata: Sequence[str] | None = None,
    *,
    queries: int | None = None,
    family: int = 1,
    alpha: float = 0.05,
    power: float = 0.8,
) -> float:
    """Smallest detectable mean difference for a suite and a pair like the one whose differences these are.

    Next to a verdict: pass the differences that were judged. Before training: pass those of an earlier pair on the
    suite, and `queries` if the next evaluation has another number of them (in the same shares of the tasks).

    Args:
        differences: one value per query, [N].
        strata: task of each query; then it is about the mean over tasks of the tasks' means.
        queries: how many queries will be evaluated; N if None.
        family: number of comparisons to be corrected for: the level is `alpha / family`.

    Returns:
        The difference in the metric's unit; infinity where no spread can be estimated from so few queries; 0 where
        the differences do not vary.

    Raises:
        ValueError: no differences, values that are not finite, `queries` or `family` below 1, `alpha` or `power`
            outside (0, 1).
    """
    sample = stratify(differences, strata)
    n = sample.values.size
    planned = n if queries is None else queries
    if planned < 1 or family < 1 or not 0.0 < alpha < power < 1.0:
        raise ValueError(f"expected queries, family >= 1 and alpha < power, got {planned}, {family}, {alpha}, {power}")
    error, freedom = standard_error(sample)
    if freedom == 0.0:
        return math.inf
    scale = planned / n
    if freedom * scale < 1.0:
        return math.inf
    return _detectable(error / math.sqrt(scale), freedom * scale, alpha / family, power)


def forecast_detectable(
    sd: float,
    queries: int,
    *,
    runs: int = 1,
    run_sd: float = 0.0,
    family: int = 1,
    alpha: float = 0.05,
    power: float = 0.8,
) -> float:
    """Smallest detectable difference between two recipes, each trained with `runs` seeds, before any is trained.

    The squared standard error is sd^2 / queries + 2 run_sd^2 / runs, with Satterthwaite's degrees of freedom. More
    seeds shrink the second term alone: no number of seeds makes up for few queries. (They also shrink a part of `sd`,
    which is left out: the forecast is on the careful side.) With `run_sd` 0 it speaks of two trained models, not of
    two recipes.

    Args:
        sd: typical standard deviation of per-query differences on the suite, of two runs of such recipes.
        queries: number of queries of the suite.
        runs: seeds per recipe.
        run_sd: standard deviation of a run's mean score between seeds of one recipe (`seeds.run_sd`).

    Returns:
        The difference in the unit of `sd`; infinity with fewer than 2 queries, or with one run each where runs vary
        (their spread could then not be estimated from the runs).

    Raises:
        ValueError: negative or non-finite spreads, counts below 1, `alpha` or `power` outside (0, 1).
    """
    spreads_fine = all(math.isfinite(value) and value >= 0.0 for value in (sd, run_sd))
    if not spreads_fine or min(queries, runs, family) < 1 or not 0.0 < alpha < power < 1.0:
        raise ValueError(
            f"expected spreads >= 0, counts >= 1 and alpha < power, got {sd=}, {run_sd=}, {queries=}, {runs=}, "
            f"{family=}, {alpha=}, {power=}"
        )
    if queries < 2 or (runs < 2 and run_sd > 0.0):
        return math.inf
    of_queries, of_runs = sd**2 / queries, 2.0 * run_sd**2 / runs
    total = of_queries + of_runs
    if total == 0.0:
        return 0.0
    freedom = total**2 / (of_queries**2 / (queries - 1) + (of_runs**2 / (2 * (runs - 1)) if of_runs else 0.0))
    return _detectable(math.sqrt(total), freedom, alpha / family, power)


def detectable_by_error(
    uncertainty: CombinedError, *, family: int = 1, alpha: float = 0.05, power: float = 0.8
) -> float:
    """Smallest mean difference that a test with this standard error finds, as `smallest_detectable`.

    Args:
        uncertainty: of the mean difference (`seeds.SeedInterval` has it over seeds and queries).

    Returns:
        The difference in the metric's unit; infinity with less than one degree of freedom.

    Raises:
        ValueError: `family` below 1, `alpha` or `power` outside (0, 1).
    """
    if family < 1 or not 0.0 < alpha < power < 1.0:
        raise ValueError(f"expected family >= 1 and alpha < power, got {family}, {alpha}, {power}")
    freedom = uncertainty.freedom_at(alpha / family / 2.0)
    return math.inf if freedom < 1.0 else _detectable(uncertainty.error, freedom, alpha / family, power)


def _detectable(error: float, freedom: float, alpha: float, power: float) -> float:
    """Mean difference that a two-sided t-test at level `alpha` finds with probability `power`."""
    if error == 0.0:
        return 0.0
    critical = float(scipy.stats.t.ppf(1.0 - alpha / 2.0, freedom))

    def shortfall(noncentrality: float) -> float:
        # The lower rejection region adds less than alpha / 2 and nothing that matters at power 0.8.
        return float(scipy.stats.nct.sf(critical, freedom, noncentrality)) - power

    return float(scipy.optimize.brentq(shortfall, 0.0, 10.0 * critical + 10.0)) * error
