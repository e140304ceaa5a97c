"""Rank agreement of a cheap proxy with a benchmark, over runs: can the proxy choose between recipes?

A proxy (validation loss, local rank, STS, a compact suite) is useful if it leads to the choice that the external suite
would make. Kendall's tau-b measures the agreement of the two orders: concordant less discordant pairs of runs, over all
pairs, corrected for ties (Kendall 1945, "The Treatment of Ties in Ranking Problems"). Sign agreement is the share of
concordant pairs, among the pairs that neither side ties.

Pairs share runs, so they are not independent: R runs are R pieces of evidence and not R (R - 1) / 2. The bootstrap
therefore resamples runs. A run drawn twice is tied with itself, and such pairs are not counted. It treats the runs
as a random sample of future runs; variants of one recipe are more alike than that, so the interval is a lower bound on
the uncertainty.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from gemma4vec.statistics.stratified import Floats

MIN_RUNS = 5  # with 4 runs, even a perfect order has a two-sided p of 1/12
RESAMPLES_PER_BLOCK = 1024


@dataclass(frozen=True)
class Estimate:
    """A value with its bootstrap interval over runs; the interval is the whole scale if it cannot be estimated."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ProxyDecisions:
    """The suite's answers for the pairs in which the proxy prefers one run.

    Attributes:
        proxy_yes: number of pairs in which the proxy calls one run better.
        agreed, denied, tied: number of these that the suite calls better, worse, neither.
    """

    proxy_yes: int
    agreed: int
    denied: int
    tied: int

    @property
    def false_discovery_rate(self) -> float:
        """Share of the proxy's preferences that the suite reverses; NaN without any."""
        return self.denied / self.proxy_yes if self.proxy_yes else math.nan


@dataclass(frozen=True)
class Agreement:
    """A proxy against an external suite, over runs.

    Attributes:
        tau: Kendall's tau-b, -1 to 1; NaN where one side has the same value for all runs.
        signs: share of pairs in the same order, of those on which both take a side, 0 to 1.
        pairs: over all pairs of runs, what the suite said where the proxy called one of them better.
        against_control: the same for each other run against the control, where one was named.
        note: caveat, or an empty string.
    """

    runs: int
    confidence: float
    tau: Estimate
    signs: Estimate
    pairs: ProxyDecisions
    against_control: ProxyDecisions | None
    note: str


@dataclass(frozen=True)
class Promotion:
    """Whether a proxy may promote a recipe, and why (not)."""

    allowed: bool
    reason: str


def agreement(
    proxy: Sequence[float] | Floats,
    suite: Sequence[float] | Floats,
    *,
    proxy_higher_is_better: bool = True,
    least_proxy: float = 0.0,
    least_suite: float = 0.0,
    control: int | None = None,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Agreement:
    """Kendall's tau-b and sign agreement with percentile intervals, and how often the suite denied the proxy's yes.

    Where the orders are the same or opposite in every pair, resampling runs cannot vary the figure. Its interval is
    then Fieller's (Fieller, Hartley & Pearson 1957, "Tests for Rank Correlation Coefficients": arctanh(tau) has
    variance .437 / (R - 4)) around a tau of 1 - 1/R.

    Args:
        proxy: the proxy's value of each run, [R].
        suite: the external suite's score of the same runs, higher is better, [R].
        proxy_higher_is_better: False for a loss.
        least_proxy, least_suite: differences up to this size are ties for sign agreement and decisions (not for tau).
        control: position of the run that others are compared with.

    Raises:
        ValueError: rows of different lengths, fewer than 2 runs, values that are not finite, `confidence` outside (0,
            1), fewer than 100 resamples, thresholds below 0, a control that is not there.
    """
    x_R, y_R = _checked(proxy, suite, least_proxy, least_suite, control, confidence, resamples)
    x_R = x_R if proxy_higher_is_better else -x_R
    runs = x_R.size
    # signs_ij = 1 where run i is better than run j
    order_x_RR, order_y_RR = _signs(x_R, 0.0), _signs(y_R, 0.0)
    sides_x_RR, sides_y_RR = _signs(x_R, least_proxy), _signs(y_R, least_suite)
    weights_BR = np.vstack([np.ones(runs), _resampled_counts(runs, resamples, seed)])
    tau_B = _tau_b(order_x_RR, order_y_RR, weights_BR)
    both_RR = np.abs(sides_x_RR * sides_y_RR)
    share_B = (1.0 + _ratio(_paired(sides_x_RR * sides_y_RR, weights_BR), _paired(both_RR, weights_BR))) / 2.0
    return Agreement(
        runs,
        confidence,
        _estimate(tau_B, runs, confidence, lowest=-1.0),
        _estimate(share_B, runs, confidence, lowest=0.0),
        _decisions(sides_x_RR, sides_y_RR),
        None if control is None else _decisions(sides_x_RR[:, [control]], sides_y_RR[:, [control]]),
        _note(runs, tau_B[0]),
    )


def may_promote(found: Agreement, least_tau: float = 0.5) -> Promotion:
    """A proxy under a threshold cannot promote: tau has to reach `least_tau`, and its interval to exclude zero.

    The first asks whether the proxy is good enough, the second whether that is more than luck with a few runs.

    Raises:
        ValueError: a threshold outside (0, 1].
    """
    if not 0.0 < least_tau <= 1.0:
        raise ValueError(f"expected a threshold above 0 and at most 1, got {least_tau}")
    tau = found.tau
    if math.isnan(tau.value):
        return Promotion(False, f"cannot promote: {found.note}")
    figures = f"Kendall tau {tau.value:.2f} ({100 * found.confidence:.4g}% interval {tau.low:.2f} to {tau.high:.2f})"
    over = f"{figures} over {found.runs} runs"
    if tau.value < least_tau:
        return Promotion(False, f"cannot promote: {over} is under the threshold of {least_tau:g}")
    if tau.low <= 0.0:
        return Promotion(False, f"cannot promote: {over} may be luck, since the interval reaches zero")
    return Promotion(True, f"may promote: {over} reaches the threshold of {least_tau:g}")


def _checked(
    proxy: Sequence[float] | Floats,
    suite: Sequence[float] | Floats,
    least_proxy: float,
    least_suite: float,
    control: int | None,
    confidence: float,
    resamples: int,
) -> tuple[Floats, Floats]:
    x_R, y_R = np.asarray(proxy, dtype=np.float64), np.asarray(suite, dtype=np.float64)
    if x_R.ndim != 1 or x_R.shape != y_R.shape or x_R.size < 2:
        raise ValueError(f"expected two rows of 2 or more runs, got shapes {x_R.shape} and {y_R.shape}")
    if not (np.isfinite(x_R).all() and np.isfinite(y_R).all()):
        raise ValueError("some values are not finite")
    if not 0.0 < confidence < 1.0 or resamples < 100 or not (least_proxy >= 0.0 and least_suite >= 0.0):
        raise ValueError(
            f"expected confidence in (0, 1), resamples >= 100 and thresholds >= 0, got {confidence}, {resamples}, "
            f"{least_proxy} and {least_suite}"
        )
    if control is not None and not 0 <= control < x_R.size:
        raise ValueError(f"there is no run {control} among {x_R.size}")
    return x_R, y_R


def _signs(values_R: Floats, least: float) -> Floats:
    """1 where a run is better than another by more than `least`, -1 where worse, else 0, [R, R]."""
    difference_RR = values_R[:, None] - values_R[None, :]
    return np.where(np.abs(difference_RR) > least, np.sign(difference_RR), 0.0)


def _resampled_counts(runs: int, resamples: int, seed: int) -> Floats:
    """How often each run is drawn in each bootstrap resample, [resamples, R]."""
    counts = np.random.default_rng(seed).multinomial(runs, np.full(runs, 1.0 / runs), size=resamples)
    return np.asarray(counts, dtype=np.float64)


def _paired(pairs_RR: Floats, weights_BR: Floats) -> Floats:
    """Sum over ordered pairs of runs, each as often as both were drawn, [B]."""
    sums = [
        ((weights_BR[start : start + RESAMPLES_PER_BLOCK] @ pairs_RR) * weights_BR[start : start + RESAMPLES_PER_BLOCK])
        for start in range(0, len(weights_BR), RESAMPLES_PER_BLOCK)
    ]
    return np.concatenate([block.sum(axis=1) for block in sums])


def _ratio(above_B: Floats, below_B: Floats) -> Floats:
    """Quotient; NaN where the denominator is 0."""
    return np.divide(above_B, below_B, out=np.full_like(above_B, np.nan), where=below_B > 0.0)


def _tau_b(x_RR: Floats, y_RR: Floats, weights_BR: Floats) -> Floats:
    """Kendall's tau-b of each weighting of the runs, [B]."""
    untied_x_B, untied_y_B = _paired(np.abs(x_RR), weights_BR), _paired(np.abs(y_RR), weights_BR)
    return _ratio(_paired(x_RR * y_RR, weights_BR), np.sqrt(untied_x_B * untied_y_B))


def _estimate(values_B: Floats, runs: int, confidence: float, lowest: float) -> Estimate:
    """Return the first value, with the percentile interval of the others."""
    value, resampled = float(values_B[0]), values_B[1:][~np.isnan(values_B[1:])]
    if math.isnan(value) or runs < MIN_RUNS:
        return Estimate(value, lowest, 1.0)
    tail = (1.0 - confidence) / 2.0
    low, high = (float(limit) for limit in np.quantile(resampled, [tail, 1.0 - tail]))
    if np.ptp(resampled) < 1e-12:
        low, high = _fieller(runs, confidence, 1.0 if value > (lowest + 1.0) / 2.0 else -1.0)
        if lowest == 0.0:  # a share, not a tau
            low, high = (1.0 + low) / 2.0, (1.0 + high) / 2.0
    return Estimate(value, low, high)


def _fieller(runs: int, confidence: float, sign: float) -> tuple[float, float]:
    """Fieller's interval, extended to the end of the scale at which the value lies."""
    inner = math.tanh(
        math.atanh(1.0 - 1.0 / runs) - float(ndtri(0.5 + confidence / 2.0)) * math.sqrt(0.437 / (runs - 4))
    )
    return (inner, 1.0) if sign > 0.0 else (-1.0, -inner)


def _decisions(proxy: npt.NDArray[np.float64], suite: npt.NDArray[np.float64]) -> ProxyDecisions:
    """Count ordered pairs in which the proxy says yes: of (i, j) and (j, i) at most one does."""
    said = suite[proxy > 0.0]
    return ProxyDecisions(said.size, int((said > 0).sum()), int((said < 0).sum()), int((said == 0).sum()))


def _note(runs: int, tau: float) -> str:
    if math.isnan(tau):
        return f"all {runs} runs have the same value on one side, so there is no order to agree on"
    if runs < MIN_RUNS:
        return (
            f"{runs} runs are too few for an interval: with fewer than {MIN_RUNS}, even a perfect order may be chance"
        )
    return ""
