"""Number of comparisons that a verdict is corrected for, and number of looks at each suite.

A family of comparisons is those on one suite's contents. Its size is the larger of (models seen by this metric - 1)
and (pairs compared by any metric, this one included). Whoever looks at m models on a suite and then shows one
difference has chosen among m - 1 differences from a baseline, shown or not; whoever compares a pair by three metrics
has made three comparisons. An unchanged model that is looked at twice is one try, and so is a pair that is compared
again.

A family has no beginning but the first look: a freeze, another name of the suite or another document in it begins none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gemma4vec.ledger.ledger import Ledger
from gemma4vec.ledger.suite_contents import find_copies
from gemma4vec.text.counted import counted


@dataclass(frozen=True)
class ComparisonFamily:
    """Size of a family of comparisons, and the counts behind it.

    Attributes:
        size: comparisons to correct for, this one included.
        models: different models (by fingerprint) seen on this suite and metric.
        pairs: different pairs compared, by each metric, this one included.
        unrecorded: models of these pairs whose look this ledger does not have.
    """

    size: int
    models: int
    pairs: int
    unrecorded: int = 0

    def sentence(self) -> str:
        """For a person."""
        said = f"{self.size} ({counted(self.models, 'model')} seen, {counted(self.pairs, 'pair')} compared so far"
        if self.unrecorded:
            said += f"; this ledger did not record {self.unrecorded} of the results, so there may be more"
        return f"{said})"


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
    """Count the family of comparisons that are shown together, on these contents and on changed copies of them.

    Args:
        compared: pairs of {"fingerprint": of the model}; without any, what was counted so far.
    """
    contents = find_copies(ledger, suite_fingerprint)
    marks = ", ".join("?" * len(contents))
    own = {(metric, *sorted((a["fingerprint"], b["fingerprint"]))) for a, b in compared}
    sides = {one["fingerprint"] for pair in compared for one in pair}
    seen = {
        row["model_fingerprint"]
        for row in ledger.rows(
            f"SELECT DISTINCT model_fingerprint FROM looks WHERE suite_fingerprint IN ({marks}) AND metric = ?",
            (*contents, metric),
        )
    }
    pairs = {
        (row["metric"], *sorted((str(row["fingerprint_a"]), str(row["fingerprint_b"]))))
        for row in ledger.rows(
            "SELECT DISTINCT metric, fingerprint_a, fingerprint_b FROM comparisons "
            f"WHERE suite_fingerprint IN ({marks})",
            contents,
        )
    }
    models, pairs = seen | sides, pairs | own
    return ComparisonFamily(max(len(models) - 1, len(pairs), 0), len(models), len(pairs), len(sides - seen))


def count_looks(ledger: Ledger) -> list[dict[str, Any]]:
    """Return one row for each suite (by contents) with its numbers of looks, models and comparisons.

    "..._since_freeze" count from the last freeze, in the order of the ledger; they change no family. "locked" is
    whether no recipe was frozen since the suite was locked.
    """
    since = ledger.value("SELECT max(seq) FROM freezes") or 0
    rows = ledger.rows(
        """SELECT suite_fingerprint, max(suite) AS suite, max(role) AS role, count(DISTINCT id) AS looks,
             count(DISTINCT CASE WHEN seq > ? THEN id END) AS looks_since_freeze,
             count(DISTINCT model_fingerprint) AS models,
             count(DISTINCT CASE WHEN seq > ? THEN model_fingerprint END) AS models_since_freeze,
             min(time) AS first, max(time) AS last
           FROM looks GROUP BY suite_fingerprint ORDER BY looks DESC, suite""",
        (since, since),
    )
    compared = {
        row["suite_fingerprint"]: row["comparisons"]
        for row in ledger.rows("SELECT suite_fingerprint, count(*) AS comparisons FROM comparisons GROUP BY 1")
    }
    locked = ledger.rows("SELECT suite, suite_fingerprint FROM locks WHERE seq > ?", (since,))
    for row in rows:
        row["comparisons"] = compared.get(row["suite_fingerprint"], 0)
        row["locked"] = any(
            row["suite"] == one["suite"] or row["suite_fingerprint"] == one["suite_fingerprint"] for one in locked
        )
    return rows
