"""Number of comparisons that a verdict is corrected for, and number of looks at each suite.

A family of comparisons is those on one suite's contents and one metric since the last freeze. Its size is the larger of
(models seen - 1) and (pairs compared, this one included). Whoever looks at m models on a suite and then shows one
difference has chosen among m - 1 differences from a baseline, shown or not. An unchanged model that is looked at twice
is one try, and so is a pair that is compared again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gemma4vec.ledger.ledger import Ledger


@dataclass(frozen=True)
class ComparisonFamily:
    """Size of a family of comparisons, and the counts behind it.

    Attributes:
        size: comparisons to correct for, this one included.
        models: different models (by fingerprint) seen on this suite and metric.
        pairs: different pairs compared, this one included.
        since: time of the freeze that began the family; None if there was no freeze.
    """

    size: int
    models: int
    pairs: int
    since: str | None

    def sentence(self) -> str:
        """For a person."""
        start = f"since the freeze of {self.since[:19]}" if self.since else "so far"
        return f"{self.size} ({self.models} models seen, {self.pairs} pairs compared {start})"


def count_family(
    ledger: Ledger, suite_fingerprint: str, metric: str, a: Mapping[str, Any], b: Mapping[str, Any]
) -> ComparisonFamily:
    """Count the family of one comparison; see `count_family_of_pairs`."""
    return count_family_of_pairs(ledger, suite_fingerprint, metric, [(a, b)])


def count_family_of_pairs(
    ledger: Ledger,
    suite_fingerprint: str,
    metric: str,
    compared: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]],
) -> ComparisonFamily:
    """Count the family of comparisons that are shown together.

    The family began with the last freeze before the newer of the two models was first seen here. So neither freezing
    after many looks nor looking again reduces the count. For several pairs, the earliest such freeze counts.

    Args:
        compared: pairs of {"fingerprint": of the model, "created": of its result}.
    """
    own = {tuple(sorted((a["fingerprint"], b["fingerprint"]))) for a, b in compared}
    starts = [
        ledger.value(
            "SELECT max(time) FROM freezes WHERE time < ?",
            (max(_first_look(ledger, suite_fingerprint, metric, one) for one in pair),),
        )
        for pair in compared
    ]
    since = None if None in starts else min(starts)
    models = {
        row["model_fingerprint"]
        for row in ledger.rows(
            "SELECT DISTINCT model_fingerprint FROM looks WHERE suite_fingerprint = ? AND metric = ? AND time > ?",
            (suite_fingerprint, metric, since or ""),
        )
    }
    pairs = {
        tuple(sorted((row["fingerprint_a"], row["fingerprint_b"])))
        for row in ledger.rows(
            "SELECT DISTINCT fingerprint_a, fingerprint_b FROM comparisons "
            "WHERE suite_fingerprint = ? AND metric = ? AND time > ?",
            (suite_fingerprint, metric, since or ""),
        )
    }
    models |= {side for pair in own for side in pair}
    pairs |= own
    return ComparisonFamily(max(len(models) - 1, len(pairs)), len(models), len(pairs), since)


def _first_look(ledger: Ledger, suite_fingerprint: str, metric: str, one: Mapping[str, Any]) -> str:
    """Return when a model was first seen on a suite; if no look is recorded, when its result was made."""
    seen = ledger.value(
        "SELECT min(time) FROM looks WHERE suite_fingerprint = ? AND metric = ? AND model_fingerprint = ?",
        (suite_fingerprint, metric, one["fingerprint"]),
    )
    return seen or one["created"] or ""


def count_looks(ledger: Ledger) -> list[dict[str, Any]]:
    """Return one row for each suite (by contents) with its numbers of looks, models and comparisons."""
    since = ledger.value("SELECT max(time) FROM freezes") or ""
    rows = ledger.rows(
        """SELECT suite_fingerprint, max(suite) AS suite, max(role) AS role, count(DISTINCT id) AS looks,
             count(DISTINCT CASE WHEN time > ? THEN id END) AS looks_since_freeze,
             count(DISTINCT model_fingerprint) AS models,
             count(DISTINCT CASE WHEN time > ? THEN model_fingerprint END) AS models_since_freeze,
             min(time) AS first, max(time) AS last
           FROM looks GROUP BY suite_fingerprint ORDER BY looks DESC, suite""",
        (since, since),
    )
    compared = {
        row["suite_fingerprint"]: row["comparisons"]
        for row in ledger.rows("SELECT suite_fingerprint, count(*) AS comparisons FROM comparisons GROUP BY 1")
    }
    locked = ledger.rows("SELECT suite, suite_fingerprint FROM locks WHERE time > ?", (since,))
    for row in rows:
        row["comparisons"] = compared.get(row["suite_fingerprint"], 0)
        row["locked"] = any(
            row["suite"] == one["suite"] or row["suite_fingerprint"] == one["suite_fingerprint"] for one in locked
        )
    return rows
