"""What the ledger knows of comparisons: the family of one, its record, the margins stated before."""

from collections.abc import Sequence

from gemma4vec.errors import InputError
from gemma4vec.evaluation.comparison.paired import Comparison
from gemma4vec.evaluation.results.result import Result
from gemma4vec.files import home
from gemma4vec.ledger.comparison_count import ComparisonFamily, count_family_of_pairs
from gemma4vec.ledger.ledger import Ledger, open_ledger
from gemma4vec.ledger.recording import record_comparison
from gemma4vec.ledger.suite_contents import find_copies

Pair = tuple[Result, Result]


class NotComparedError(InputError):
    """A pair whose comparison the ledger does not have yet, asked for by who may not record one."""


def count_family_of_results(pairs: Sequence[Pair], metric: str) -> ComparisonFamily:
    """Count the ledger's comparisons on the suite of these pairs and `metric`, these included."""
    sides = [({"fingerprint": fingerprint(a)}, {"fingerprint": fingerprint(b)}) for a, b in pairs]
    with open_ledger(home(), tolerant=True) as ledger:
        return count_family_of_pairs(ledger, contents(pairs[0][0]), metric, sides)


def count_unrecorded(ledger: Ledger, sides: Sequence[Sequence[Result]], metric: str) -> int:
    """Count the models of these sides whose look at the suite this ledger does not have; an average has none."""
    prints = [{"fingerprint": fingerprint(one)} for side in sides for one in side]
    pairs = [(one, one) for one in prints]
    return count_family_of_pairs(ledger, contents(sides[0][0]), metric, pairs).unrecorded


def check_compared(pairs: Sequence[Pair], metric: str) -> None:
    """Refuse pairs that the ledger has not recorded as compared by this metric.

    Raises:
        NotComparedError: one of the pairs.
    """
    with open_ledger(home(), tolerant=True) as ledger:
        copies = find_copies(ledger, contents(pairs[0][0]))
        marks = ", ".join("?" * len(copies))
        rows = ledger.rows(
            f"SELECT fingerprint_a, fingerprint_b FROM comparisons WHERE suite_fingerprint IN ({marks}) AND metric = ?",
            (*copies, metric),
        )
    known = {frozenset((row["fingerprint_a"], row["fingerprint_b"])) for row in rows}
    for a, b in pairs:
        if frozenset((fingerprint(a), fingerprint(b))) not in known:
            raise NotComparedError(
                f"{a.model} and {b.model} have not been compared on {a.suite} by {metric} yet; the ledger counts each "
                "pair that is"
            )


def record(found: Comparison, a: Result, b: Result, *, margin: float | None, no_worse_than: float | None) -> None:
    """Record a comparison, its verdict, and the margins that were stated for it."""
    fingerprints = {"fingerprint_a": fingerprint(a), "fingerprint_b": fingerprint(b)}
    verdict = {"p": found.verdict.p, "family": found.verdict.family, "verdict": found.verdict.word}
    what = {"suite": found.suite, "suite_fingerprint": contents(a), "metric": found.metric, "a": found.a, "b": found.b}
    stated = {"margin": margin, "no_worse_than": no_worse_than}
    touched = {"touched": found.touched.touched, "left": found.touched.left} if found.touched else None
    rests_on = {"speaks_of": found.scope.of if found.scope else None, "touched_queries": touched}
    cautions = {"cautions": list(found.cautions)}
    record_comparison(
        {**what, **fingerprints, "difference": found.difference, **verdict, **stated, **rests_on, **cautions}
    )


def margins_stated_late(
    ledger: Ledger,
    a: Sequence[Result],
    b: Sequence[Result],
    metric: str,
    *,
    margin: float | None,
    no_worse_than: float | None,
) -> list[str]:
    """Say which margins were stated after this pair had been compared; whoever saw the difference can choose them.

    Args:
        a, b: the results of each side, and their average: a comparison of any of A with any of B counts.
        margin, no_worse_than: as stated now, or None.
    """
    ours, theirs = {fingerprint(one) for one in a}, {fingerprint(one) for one in b}
    copies = find_copies(ledger, contents(a[0]))
    marks = ", ".join("?" * len(copies))
    rows = ledger.rows(
        f"""SELECT time, json_extract(body, '$.fingerprint_a') AS a, json_extract(body, '$.fingerprint_b') AS b,
             json_extract(body, '$.margin') AS margin, json_extract(body, '$.no_worse_than') AS no_worse_than
           FROM records WHERE kind = 'comparison' AND json_extract(body, '$.suite_fingerprint') IN ({marks})
             AND json_extract(body, '$.metric') = ? ORDER BY seq""",
        (*copies, metric),
    )
    same_way = [row for row in rows if row["a"] in ours and row["b"] in theirs]
    either_way = [row for row in rows if row in same_way or (row["b"] in ours and row["a"] in theirs)]
    late = []
    if margin is not None and either_way and either_way[0]["margin"] != margin:
        late.append(_late(f"the margin {margin:g}", either_way[0]["time"], either_way[0]["margin"]))
    if no_worse_than is not None and either_way:
        first = either_way[0]
        before = first["no_worse_than"] if first in same_way else None
        if before != no_worse_than:
            late.append(_late(f'"no worse than {no_worse_than:g}"', first["time"], before))
    return late


def _late(what: str, time: str, before: float | None) -> str:
    first = "without one" if before is None else f"with {before:g}"
    return f"{what} was stated after this pair had been compared ({first}, {time[:10]}): it was not chosen beforehand"


def fingerprint(result: Result) -> str:
    """Return the id of the result's model in the ledger."""
    return result.settings.get("model_fingerprint") or result.model


def contents(result: Result) -> str:
    """Return the id of the result's suite contents in the ledger."""
    return result.contents or result.suite
