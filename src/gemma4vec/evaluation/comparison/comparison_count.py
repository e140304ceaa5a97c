"""Comparisons corrected for the ledger's family, and recorded there."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from gemma4vec.evaluation.comparison.paired import Comparison, _compare_uncorrected
from gemma4vec.evaluation.results.result import Result
from gemma4vec.files import home
from gemma4vec.ledger.comparison_count import ComparisonFamily, count_family_of_pairs
from gemma4vec.ledger.ledger import open_ledger
from gemma4vec.ledger.recording import record_comparison
from gemma4vec.statistics.multiplicity import Correction, adjust
from gemma4vec.statistics.seeds import SeedInterval
from gemma4vec.statistics.verdict import decide

Pair = tuple[Result, Result]


class SeedUncertainty(NamedTuple):
    """Uncertainty between seeds, from several runs on each side.

    Attributes:
        interval: over seeds and queries.
        detectable: smallest detectable difference of the recipes, if the interval covers seeds.
    """

    interval: SeedInterval | None = None
    detectable: float | None = None


class CorrectedComparisons(NamedTuple):
    """Comparisons on one suite and metric, in the order of the pairs, and their family."""

    comparisons: list[Comparison]
    family: ComparisonFamily


def count_family_of_results(pairs: Sequence[Pair], metric: str) -> ComparisonFamily:
    """Count the ledger's comparisons on the suite of these pairs and `metric`, these included."""
    sides = [
        (
            {"fingerprint": fingerprint(a), "created": a.settings.get("created")},
            {"fingerprint": fingerprint(b), "created": b.settings.get("created")},
        )
        for a, b in pairs
    ]
    with open_ledger(home(), tolerant=True) as ledger:
        return count_family_of_pairs(ledger, contents(pairs[0][0]), metric, sides)


def compare_pairs(
    pairs: Sequence[Pair],
    metric: str = "ndcg@10",
    *,
    seed: int = 0,
    margin: float | None = None,
    no_worse_than: float | None = None,
    correction: Correction = "holm",
    spreads: Sequence[SeedUncertainty] | None = None,
    allow_different_settings: bool = False,
) -> CorrectedComparisons:
    """Compare several pairs of results on one suite: corrected together for the ledger's family, and recorded.

    Holm's procedure uses the p-values of these pairs; the other comparisons of the family count as p = 1.

    Args:
        pairs: (A, B), one or more; the differences are A - B.
        seed: of the random sign flips.
        margin: differences below it do not matter; required for the verdict "equivalent".
        no_worse_than: also test whether A is worse by less than this.
        correction: "holm" for claims, "benjamini-hochberg" for exploration.
        spreads: for each pair of means over runs, the uncertainty between their seeds.
        allow_different_settings: compare even if the models truncate texts at different lengths.

    Raises:
        InputError: different suites or queries, a metric that one lacks, different truncation limits.
    """
    family = count_family_of_results(pairs, metric)
    alone = [
        _compare_uncorrected(
            a,
            b,
            metric,
            seed=seed,
            margin=margin,
            no_worse_than=no_worse_than,
            family=family.size,
            seeds=spread.interval,
            detectable=spread.detectable,
            allow_different_settings=allow_different_settings,
        )
        for (a, b), spread in zip(pairs, spreads or [SeedUncertainty()] * len(pairs), strict=True)
    ]
    adjusted = adjust([one.test.p for one in alone], "none" if family.size == 1 else correction, family.size)
    found = []
    for one, corrected, (a, b) in zip(alone, adjusted, pairs, strict=True):
        verdict = decide(
            one.test,
            one.interval,
            equivalence=one.equivalence,
            adjusted=corrected,
            smallest_detectable=one.smallest_detectable,
            lower_is_better=one.lower_is_better,
        )
        found.append(replace(one, verdict=verdict, family=family))
        record(found[-1], a, b)
    return CorrectedComparisons(found, family)


def record(found: Comparison, a: Result, b: Result) -> None:
    """Record a comparison and its verdict in the ledger."""
    fingerprints = {"fingerprint_a": fingerprint(a), "fingerprint_b": fingerprint(b)}
    verdict = {"p": found.verdict.p, "family": found.verdict.family, "verdict": found.verdict.word}
    what = {"suite": found.suite, "suite_fingerprint": contents(a), "metric": found.metric, "a": found.a, "b": found.b}
    record_comparison({**what, **fingerprints, "difference": found.difference, **verdict})


def fingerprint(result: Result) -> str:
    """Return the id of the result's model in the ledger."""
    return result.settings.get("model_fingerprint") or result.model


def contents(result: Result) -> str:
    """Return the id of the result's suite contents in the ledger."""
    return (result.settings.get("suite") or {}).get("fingerprint") or result.suite
