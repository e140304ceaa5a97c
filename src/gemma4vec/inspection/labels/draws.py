"""How a pair came before its reader: from the queue's top or at random; what share of each is right.

The queue's first pairs say how useful the queue is. What share of all flags is right only pairs in random order say:
those that come first in the order of a seed, down to the last one that was read in that order. The order is that of
hashes of the pairs, so that it does not depend on verdicts, nor on which other pairs are flagged.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from gemma4vec.statistics.slices.lift import rate

Pair = tuple[str, str]  # ids of a query and a document
Order = Literal["likely", "random"]
LIKELY, RANDOM = "likely", "random"


@dataclass(frozen=True)
class Draw:
    """The order of the queue that a pair was read from.

    Attributes:
        order: "likely" for the pairs that are most likely right first, or "random".
        seed: of a random order; None for the other.
    """

    order: Order
    seed: int | None = None

    def as_json(self) -> dict[str, Any]:
        """For a queue and a judgment."""
        return {"order": self.order, **({} if self.seed is None else {"seed": self.seed})}


LIKELY_FIRST = Draw("likely")


def parse_draw(value: Any) -> Draw | None:
    """The draw that a line names; None where it names none.

    Raises:
        ValueError: it is none, with the reason.
    """
    if value is None:
        return None
    order, seed = (value.get("order"), value.get("seed")) if isinstance(value, dict) else (None, None)
    known = (order == LIKELY and seed is None) or (order == RANDOM and type(seed) is int and seed >= 0)
    if not known:
        raise ValueError(
            '"drawn" is {"order": "likely"} or {"order": "random", "seed": N}, as `inspect labels` wrote it'
        )
    return Draw(cast(Order, order), seed)


def random_place(pair: Pair, seed: int, fingerprint: str) -> int:
    """Where a pair stands in the random order of a seed, among all pairs that a suite could have."""
    words = "\0".join([str(seed), fingerprint, *pair]).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(words, digest_size=8).digest(), "big")


def drawn_at_random(
    flagged: Sequence[Pair], draws: Mapping[Pair, Iterable[Draw]], fingerprint: str
) -> tuple[set[Pair], list[int]]:
    """The flagged pairs that a random order puts before the last one read in it, and the seeds of such orders.

    Args:
        flagged: all of them.
        draws: of each pair with a verdict, flagged or not.
    """
    last: dict[int, int] = {}
    for pair, drawn in draws.items():
        for one in drawn:
            if one.seed is not None:
                last[one.seed] = max(last.get(one.seed, 0), random_place(pair, one.seed, fingerprint))
    sample = {
        pair for pair in flagged for seed, place in last.items() if random_place(pair, seed, fingerprint) <= place
    }
    return sample, sorted(last)


def shares(
    flagged: Sequence[Pair], grades: Mapping[Pair, int], draws: Mapping[Pair, Iterable[Draw]], fingerprint: str
) -> dict[str, dict[str, Any]]:
    """The share of right ones among flagged pairs with a verdict, by how they were drawn, with Wilson's intervals.

    `random` estimates the share of all flags (all of them, once each has a verdict). Where pairs of the random sample
    have no verdict (`skipped`), its interval takes them all as wrong for the lower limit and all as right for the
    upper one. `top` was read from the queue's top. Of `other` pairs nobody recorded how they were drawn. A
    pair may be in `random` and in `top`.

    Args:
        flagged: all flagged pairs.
        grades, draws: of each pair with a verdict.
        fingerprint: of the suite.
    """
    sample, seeds = drawn_at_random(flagged, draws, fingerprint)
    if flagged and all(pair in grades for pair in flagged):
        sample = set(flagged)
    top = [pair for pair in flagged if any(one.order == LIKELY for one in draws.get(pair, ()))]
    named = {*sample, *top}
    other = [pair for pair in flagged if pair in grades and pair not in named]
    return {
        "random": {**_share(sorted(sample), grades), "seeds": seeds},
        "top": _share(top, grades),
        "other": _share(other, grades),
    }


def _share(pairs: Sequence[Pair], grades: Mapping[Pair, int]) -> dict[str, Any]:
    read = [grades[pair] for pair in pairs if pair in grades]
    right, skipped = sum(grade >= 1 for grade in read), len(pairs) - len(read)
    low, high = rate(right, len(pairs)).low, rate(right + skipped, len(pairs)).high
    share = right / len(read) if read else None
    return {"read": len(read), "right": right, "precision": share, "low": low, "high": high, "skipped": skipped}
