"""Selection bias: the best of several candidates scores too well on the queries that selected it.

The largest of several noisy means is large partly by luck (the "winner's curse"). The unbiased score is estimated by
choosing on one random half of the queries and scoring the choice on the other, over many splits (Stone 1974,
"Cross-Validatory Choice and Assessment of Statistical Predictions"). The held-out score has no such bias; it is the
score of a choice by half as many queries, so slightly conservative. Legend: C candidates, N queries.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gemma4vec.statistics.stratified import Floats, stratify

SPLITS = 500


@dataclass(frozen=True)
class Selection:
    """The best of several candidates and the selection bias of its score.

    Attributes:
        best: position of the candidate with the highest mean.
        score: its mean on all queries, which is biased upwards.
        held_out: mean score of the choice on queries that did not choose.
        effect: `score - held_out`.
        chosen_share: for each candidate, in how many splits it was the choice.
    """

    best: int
    score: float
    held_out: float
    effect: float
    chosen_share: tuple[float, ...]


def selection_effect(
    scores_CN: npt.ArrayLike, strata: Sequence[str] | None = None, *, splits: int = SPLITS, seed: int = 0
) -> Selection:
    """Choose the candidate with the highest mean and estimate its selection bias.

    Args:
        scores_CN: one row per candidate, one column per query, higher is better, [C, N].
        strata: task of each query; then means are over tasks of the tasks' means.
        splits: random halvings of the queries, each used in both directions.
        seed: the same seed gives the same answer.

    Raises:
        ValueError: other than two-dimensional finite scores, fewer than 2 queries, fewer than one split.
    """
    x_CN = np.asarray(scores_CN, dtype=np.float64)
    if x_CN.ndim != 2 or x_CN.shape[0] == 0 or x_CN.shape[1] < 2 or splits < 1:
        raise ValueError(f"expected scores [candidates, 2 or more queries] and splits >= 1, got {x_CN.shape}, {splits}")
    if not np.isfinite(x_CN).all():
        raise ValueError("some scores are not finite")
    sample = stratify(x_CN[0], strata)
    means_C = x_CN @ sample.weights
    best = int(np.argmax(means_C))
    random = np.random.default_rng(seed)
    held_out, chosen = [], np.zeros(len(x_CN))
    for _ in range(splits):
        halves = _halves(sample.members, x_CN.shape[1], random)
        by_half_HC = np.stack([x_CN @ weights_N for weights_N in halves])
        for here, there in ((0, 1), (1, 0)):
            choice = int(np.argmax(by_half_HC[here]))
            chosen[choice] += 1.0
            held_out.append(by_half_HC[there, choice])
    mean = float(np.mean(held_out))
    score = float(means_C[best])
    return Selection(best, score, mean, score - mean, tuple(chosen / chosen.sum()))


def _halves(members: list[npt.NDArray[np.int64]], queries: int, random: np.random.Generator) -> list[Floats]:
    """Weights of each half's mean over strata; every stratum is halved, one of one query falls to either side."""
    sides: list[list[npt.NDArray[np.int64]]] = [[], []]
    for stratum in members:
        shuffled = random.permutation(stratum)
        odd = int(random.integers(0, 2)) if len(shuffled) % 2 else 0
        cut = len(shuffled) // 2 + odd
        sides[0].append(shuffled[:cut])
        sides[1].append(shuffled[cut:])
    if not any(len(part) for part in sides[0]) or not any(len(part) for part in sides[1]):
        order = random.permutation(queries)  # all strata of one query fell to one side
        sides = [[order[: queries // 2]], [order[queries // 2 :]]]
    weights = []
    for side in sides:
        filled = [part for part in side if len(part)]
        weights_N = np.zeros(queries)
        for part in filled:
            weights_N[part] = 1.0 / (len(filled) * len(part))
        weights.append(weights_N)
    return weights
