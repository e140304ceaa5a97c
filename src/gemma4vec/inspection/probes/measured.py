"""What a probe says: differences with sign flips, choices with exact binomials, each beside BM25 and chance.

Legend: n cases.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from gemma4vec.statistics.paired import sign_flip_test

Floats = npt.NDArray[np.float64]
Scores = Mapping[str, Floats]
RESAMPLES = 2_000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Measure:
    """One figure of a probe.

    Attributes:
        kind: "shift", a difference as a share of what the evidence is worth; "choice", a share of right choices;
            "score", a difference of nDCG@10.
        value, low, high: with its 95% interval (bootstrap over cases; Clopper-Pearson for choices).
        p: of sign flips against 0, or of the exact binomial against `chance`.
        chance: what a coin reaches; 0 for differences.
        control: the same of BM25; None without one.
        worse: by how much the model is worse than BM25, in the same unit; for a score the difference itself.
        p_worse: two-sided, of sign flips.
        n: cases.
    """

    probe: str
    name: str
    kind: Literal["shift", "choice", "score"]
    value: float
    low: float
    high: float
    p: float
    chance: float
    control: float | None
    worse: float
    p_worse: float
    n: int

    def as_json(self) -> dict[str, Any]:
        """For probes.json."""
        return asdict(self)


def shift(
    probe: str, name: str, scores: Scores, control: Scores, moved: tuple[str, str], worth: tuple[str, str], seed: int
) -> Measure:
    """A difference of two variants as a share of another one: what the evidence is worth.

    Args:
        moved: the variant that should score as high as the other one, behind it: (better, worse).
        worth: (with the evidence, without it).
    """
    gaps_n, effects_n = scores[moved[0]] - scores[moved[1]], scores[worth[0]] - scores[worth[1]]
    of_control_n = control[moved[0]] - control[moved[1]]
    control_worth = float((control[worth[0]] - control[worth[1]]).mean())
    own_worth = float(effects_n.mean())
    value, (low, high) = _ratio(gaps_n, effects_n), _ratio_interval(gaps_n, effects_n, seed)
    of_control = float(of_control_n.mean()) / control_worth if control_worth > 0.0 else None
    scaled_n = gaps_n / own_worth if own_worth > 0.0 else gaps_n
    against_n = of_control_n / control_worth if control_worth > 0.0 else np.zeros_like(gaps_n)
    p = sign_flip_test(gaps_n, seed=seed).p
    worse_n = scaled_n - against_n
    return Measure(
        probe, name, "shift", value, low, high, p, 0.0, of_control, float(worse_n.mean()),
        sign_flip_test(worse_n, seed=seed).p, len(gaps_n),
    )  # fmt: skip


def choice(
    probe: str, name: str, scores: Scores, control: Scores, pairs: Sequence[tuple[str, str]], seed: int
) -> Measure:
    """The share of cases in which every named text scores above the other of its pair; a tie is wrong.

    Args:
        pairs: (right, wrong) variants; chance is one half to their number.
    """
    right_n = np.all([scores[one] > scores[other] for one, other in pairs], axis=0)
    of_control_n = np.all([control[one] > control[other] for one, other in pairs], axis=0)
    chance = 0.5 ** len(pairs)
    hits, n = int(right_n.sum()), len(right_n)
    tested = stats.binomtest(hits, n, chance)
    limits = tested.proportion_ci(CONFIDENCE, method="exact")
    worse_n = of_control_n.astype(np.float64) - right_n
    return Measure(
        probe, name, "choice", hits / n, float(limits.low), float(limits.high), float(tested.pvalue), chance,
        float(of_control_n.mean()), float(worse_n.mean()), sign_flip_test(worse_n, seed=seed).p, n,
    )  # fmt: skip


def gain(probe: str, name: str, other_n: Floats, own_n: Floats, seed: int) -> Measure:
    """How much another setting gains on a metric, query by query."""
    gaps_n = other_n - own_n
    drawn = _drawn(len(gaps_n), seed)
    low, high = np.quantile(gaps_n[drawn].mean(axis=1), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    tested = sign_flip_test(gaps_n, seed=seed)
    return Measure(
        probe, name, "score", tested.mean, float(low), float(high), tested.p, 0.0, None, tested.mean, tested.p,
        len(gaps_n),
    )  # fmt: skip


def _ratio(gaps_n: Floats, effects_n: Floats) -> float:
    worth = float(effects_n.mean())
    return float(gaps_n.mean()) / worth if worth > 0.0 else float("nan")


def _ratio_interval(gaps_n: Floats, effects_n: Floats, seed: int) -> tuple[float, float]:
    """Percentiles of the ratio over resampled cases; draws in which the evidence is worth nothing are left out."""
    drawn = _drawn(len(gaps_n), seed)
    worth_B = effects_n[drawn].mean(axis=1)
    ratios = gaps_n[drawn].mean(axis=1)[worth_B > 0.0] / worth_B[worth_B > 0.0]
    if len(ratios) < RESAMPLES / 2:
        return float("nan"), float("nan")
    low, high = np.quantile(ratios, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _drawn(n: int, seed: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, n, size=(RESAMPLES, n))
