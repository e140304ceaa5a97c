"""Kinds of failure, each with its rate among failures and among successes.

A query fails if none of its right documents is among the first ten. A kind that is as frequent among successes explains
nothing, however frequent it is among failures.

Legend: N queries, K first ranks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.inspection.attributes import Value
from gemma4vec.inspection.reading import TOP, Reading
from gemma4vec.inspection.shingles import Shingles
from gemma4vec.statistics.slices.lift import Lift, lift

Flags = npt.NDArray[np.bool_]
NEAR = 30  # ranks that a reranker would still see
HUB_DEVIATIONS = 2.0  # Radovanović et al. 2010: more than two standard deviations over the mean
AGREE = 3  # first ranks in which both models show an unjudged document


@dataclass(frozen=True)
class KindCount:
    """One kind over one half of the queries."""

    name: str
    words: str
    lift: Lift
    only_failures: bool

    def as_json(self) -> dict[str, Any]:
        """For inspection.json."""
        rates = {
            side: {"value": one.value, **asdict(one)}
            for side, one in (("failures", self.lift.failures), ("successes", self.lift.successes))
        }
        ratio = {"ratio": self.lift.ratio, "low": self.lift.low, "high": self.lift.high}
        return {"name": self.name, "words": self.words, **rates, **(ratio if not self.only_failures else _NO_RATIO)}


_NO_RATIO: dict[str, float | None] = {"ratio": None, "low": None, "high": None}

KINDS: dict[str, str] = {
    "near_miss": f"a right document at ranks {TOP + 1} to {NEAR}",
    "hub_on_top": "the first wrong document is a hub: first ten of unusually many queries",
    "gold_truncated": "every right document is longer than the model reads",
    "evidence_cut": "the sentence that shares most words with the query lies behind what the model reads",
    "duplicate_above": "a near duplicate of a right document ranks above it",
    "label_doubtful": f"both models show the same unjudged document in their first {AGREE}, above every right one",
    "other_misses": "the other model fails too",
}
BY_DEFINITION = {"near_miss"}  # no success can be one


def failed(reading: Reading) -> Flags:
    """Whether no right document is among the first ten, bool[N]."""
    rank_N = reading.gold_rank()
    return (rank_N == 0) | (rank_N > TOP)


def find_kinds(
    suite: RetrievalSuite, reading: Reading, other: Reading | None, attributes: Mapping[str, Sequence[Value]]
) -> dict[str, Flags]:
    """Flags of each kind that can be told, bool[N]; a query may have several or none.

    Args:
        other: another model's reading; without it two kinds are missing.
        attributes: columns of the suite's queries.
    """
    rank_N = reading.gold_rank()
    found = {
        "near_miss": (rank_N > TOP) & (rank_N <= NEAR),
        "hub_on_top": hub_on_top(reading, len(suite.corpus)),
        "duplicate_above": duplicate_above(suite, reading),
    }
    for name in ("gold_truncated", "evidence_cut"):
        cut = attributes.get(name, [])
        if any(value is not None for value in cut):
            found[name] = np.array([value is True for value in cut])
    if other is not None:
        found["label_doubtful"] = label_doubtful(suite, reading, other)
        found["other_misses"] = failed(other)
    return {name: found[name] for name in KINDS if name in found}


def count_kinds(flags: Mapping[str, Flags], failed_N: Flags, among_N: Flags) -> list[KindCount]:
    """Count the kinds over some of the queries, most telling first: by the lower limit of the ratio."""
    failures_N, successes_N = failed_N & among_N, ~failed_N & among_N
    counted = [
        KindCount(
            name,
            KINDS[name],
            lift(
                int((flag_N & failures_N).sum()),
                int(failures_N.sum()),
                int((flag_N & successes_N).sum()),
                int(successes_N.sum()),
            ),
            name in BY_DEFINITION,
        )
        for name, flag_N in flags.items()
    ]
    return sorted(counted, key=lambda one: (one.only_failures, -(one.lift.low or 0.0)))


def k_occurrence(top_NK: npt.NDArray[np.int64], documents: int) -> npt.NDArray[np.int64]:
    """Number of queries that have each document among their first ranks, int64[M]."""
    return np.bincount(top_NK[top_NK >= 0], minlength=documents)


def hub_on_top(reading: Reading, documents: int) -> Flags:
    """Whether the first wrong document of each query is a hub, without counting the query itself, bool[N]."""
    counts_M = k_occurrence(reading.top, documents)
    least = counts_M.mean() + HUB_DEVIATIONS * counts_M.std()
    right = {(int(q), int(d)) for q, d, g in zip(reading.query, reading.document, reading.grade, strict=True) if g >= 1}
    flags_N = np.zeros(len(reading.top), dtype=bool)
    for row, ranks in enumerate(reading.top.tolist()):
        wrong = next((one for one in ranks if one >= 0 and (row, one) not in right), None)
        flags_N[row] = wrong is not None and counts_M[wrong] - 1 > least
    return flags_N


def duplicate_above(suite: RetrievalSuite, reading: Reading) -> Flags:
    """Whether a document above the best right one nearly equals a right one, bool[N]."""
    shingles = Shingles(suite)
    right: dict[int, list[int]] = {}
    for query, document, grade in zip(reading.query, reading.document, reading.grade, strict=True):
        if grade >= 1:
            right.setdefault(int(query), []).append(int(document))
    flags_N = np.zeros(len(reading.top), dtype=bool)
    for row, ranks in enumerate(reading.top.tolist()):
        gold = right.get(row, [])
        best = next((place for place, one in enumerate(ranks) if one in gold), len(ranks))
        above = [one for one in ranks[:best] if one >= 0]
        flags_N[row] = any(shingles.similar(one, other) for one in above for other in gold[:TOP])
    return flags_N


def label_doubtful(suite: RetrievalSuite, reading: Reading, other: Reading) -> Flags:
    """Whether both models show one unjudged document in their first ranks and above every right one, bool[N]."""
    judged: list[set[int]] = [set() for _ in suite.query_ids]
    right: list[set[int]] = [set() for _ in suite.query_ids]
    for query, document, grade in zip(reading.query, reading.document, reading.grade, strict=True):
        judged[int(query)].add(int(document))
        if grade >= 1:
            right[int(query)].add(int(document))
    flags_N = np.zeros(len(reading.top), dtype=bool)
    for row in range(len(reading.top)):
        shown = [_above(one.top[row].tolist(), right[row]) - judged[row] for one in (reading, other)]
        flags_N[row] = bool(shown[0] & shown[1])
    return flags_N


def _above(ranks: list[int], right: set[int]) -> set[int]:
    """The first documents of a ranking, up to its first right one."""
    best = next((place for place, one in enumerate(ranks) if one in right), AGREE)
    return {one for one in ranks[: min(best, AGREE)] if one >= 0}
