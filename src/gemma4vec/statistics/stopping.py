"""Stop rule: give up a training branch whose best case is too small to matter."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy.typing as npt

from gemma4vec.statistics.bootstrap import Interval
from gemma4vec.statistics.stratified import singleton_note, stratify
from gemma4vec.statistics.student import t_interval


@dataclass(frozen=True)
class StopDecision:
    """Whether a branch should stop, and why, in one sentence for the ledger.

    Attributes:
        stop: whether the interval's upper end lies below `least_useful`.
        least_useful: smallest improvement that was declared worth having, before the run.
        interval: mean difference branch - reference, at the confidence that the number of looks leaves to each.
        looks: checkpoints at which the question was planned to be asked.
        reason: one sentence.
    """

    stop: bool
    least_useful: float
    interval: Interval
    looks: int
    reason: str


def should_stop(
    differences: npt.ArrayLike,
    least_useful: float,
    strata: Sequence[str] | None = None,
    *,
    looks: int = 1,
    confidence: float = 0.95,
) -> StopDecision:
    """Stop when even the upper end of the interval of (branch - reference) is below the smallest useful effect.

    A branch is asked at each of `looks` planned checkpoints, and each time may stop by bad luck. The error is shared
    out among them (Bonferroni: confidence 1 - (1 - confidence) / looks each), so that a branch which is truly worth
    `least_useful` all along is stopped with at most half of (1 - confidence), however many checkpoints there are.
    The rule does not predict later improvement: it is about the checkpoint that was evaluated. Tasks of one query have
    a spread that the interval does not contain, so with one of them it never stops.

    Args:
        differences: per-query differences of the branch to the best or to the control, [N].
        least_useful: smallest difference of the mean worth having, in the metric's unit; set before the run.
        strata: task of each query, or None for a plain mean.
        looks: checkpoints in the grid, at least 1.

    Raises:
        ValueError: no differences, values that are not finite, fewer than one look, `confidence` outside (0, 1).
    """
    if looks < 1 or not 0.0 < confidence < 1.0:
        raise ValueError(f"looks must be 1 or more and confidence in (0, 1), got {looks} and {confidence}")
    interval = t_interval(differences, strata, confidence=1.0 - (1.0 - confidence) / looks)
    if interval.method == "degenerate":
        reason = f"the {interval.n} differences do not vary, so there is no interval to judge by"
        return StopDecision(False, least_useful, interval, looks, reason)
    unknown = singleton_note(stratify(differences, strata))
    if unknown:
        return StopDecision(False, least_useful, interval, looks, f"{unknown}, so it cannot stop a branch")
    stop = interval.high < least_useful
    side = "below" if stop else "not below"
    share = "" if looks == 1 else f" ({interval.confidence:.2%} for each of {looks} looks)"
    reason = (
        f"the interval{share} of the difference, {interval.low:+.4f} to {interval.high:+.4f}, ends {side} the smallest "
        f"useful effect of {least_useful:+g}"
    )
    return StopDecision(stop, least_useful, interval, looks, reason)
