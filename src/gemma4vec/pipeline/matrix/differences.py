"""Paired differences of a whole table: figures, p-values corrected together, verdicts, as JSON values."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from gemma4vec.evaluation.results.result import Result
from gemma4vec.pipeline.matrix.paired_scores import Difference, paired_difference
from gemma4vec.statistics.equivalence import correct_for
from gemma4vec.statistics.multiplicity import AdjustedP, adjust, decision_levels
from gemma4vec.statistics.power import detectable_by_error, smallest_detectable
from gemma4vec.statistics.verdict import Verdict, decide

Side = Sequence[Sequence[Result]]
"""For each run (seed), its results on every suite."""


def compare_pairs(
    pairs: Mapping[str, tuple[Side, Side]], metric: str, family: int, margin: float | None
) -> dict[str, dict[str, Any]]:
    """Compare both sides of every pair; p-values are corrected by Holm's method.

    Args:
        pairs: (A, B) by name; the differences are A - B, as `paired_difference`.
        metric: the metric to compare.
        family: the number of comparisons to correct for (`comparison_count.count_comparisons`).
        margin: differences below it do not matter; None: no verdict "equivalent".

    Raises:
        WorkError: the sides of a pair were measured on different queries.
    """
    if not pairs:
        return {}
    levels = decision_levels(len(pairs), "holm", family)
    differences = {name: paired_difference(*sides, metric, levels) for name, sides in pairs.items()}
    corrected = adjust([difference.p for difference in differences.values()], "holm", family)
    return {
        name: _describe(difference, adjusted, family, margin)
        for (name, difference), adjusted in zip(differences.items(), corrected, strict=True)
    }


def _describe(difference: Difference, adjusted: AdjustedP, family: int, margin: float | None) -> dict[str, Any]:
    interval, over_seeds = difference.interval, difference.seeds if difference.seeds.over_seeds else None
    same = None if margin is None else difference.equivalence(margin)
    detectable = (
        detectable_by_error(over_seeds.uncertainty, family=family)
        if over_seeds
        else smallest_detectable(difference.values_N, difference.strata, family=family)
    )
    if difference.none_left:
        verdict = Verdict("undetermined", f"training data touches all {difference.touched:,} queries")
    else:
        verdict = decide(
            difference.test,
            interval,
            seeds=over_seeds,
            equivalence=same and correct_for(family, same),
            adjusted=adjusted,
            smallest_detectable=detectable,
        )
    return {
        "mean": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "n": interval.n,
        "p": adjusted.p,
        "p_holm": adjusted.adjusted,
        "comparisons": adjusted.family,
        "detectable": detectable,
        "verdict": verdict.word,
        "reason": verdict.reason,
        "touched_queries": difference.touched,
        "p_of_these_runs": difference.test.p,
        "speaks_of": "recipes" if over_seeds else "runs",
        "scope": difference.seeds.statement,
        "over_seeds": asdict(over_seeds) if over_seeds else None,
    }
