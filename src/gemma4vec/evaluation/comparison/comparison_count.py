"""What the ledger adds to a comparison: the family that it is corrected for, and the record that it was made."""

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
    """What several runs a side tell of seeds: the interval over seeds and queries, and the smallest detectable
    difference where that interval speaks of the recipe."""

    interval: SeedInterval | None = None
    detectable: float | None = None


class CorrectedComparisons(NamedTuple):
    """Comparisons of one suite and metric, in the order of the pairs, and the family that all of them belong to."""

    comparisons: list[Comparison]
    family: ComparisonFamily


def count_family_of_results(pairs: Sequence[Pair], metric: str) -> ComparisonFamily:
    """How many comparisons the ledger counts for the suite of these pairs and `metric`, these included."""
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
    """Compare several pairs of results on one suite: corrected together, in the ledger's family, and recorded there.

    Holm's steps see all p-values that are at hand; what else the ledger counts stands in as p = 1.

    Args:
        pairs: (A, B), one or more; the differences are A - B.
        seed: of the random sign flips.
        margin: differences below it do not matter; only with it can a verdict be "equivalent".
        no_worse_than: asks too whether A is worse by less than this.
        correction: "holm" for claims, "benjamini-hochberg" for exploration.
        spreads: for each pair of means over runs, what is known of their seeds.

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
    """Tell the ledger what was compared and what was said."""
    fingerprints = {"fingerprint_a": fingerprint(a), "fingerprint_b": fingerprint(b)}
    said = {"p": found.verdict.p, "family": found.verdict.family, "verdict": found.verdict.word}
    what = {"suite": found.suite, "suite_fingerprint": contents(a), "metric": found.metric, "a": found.a, "b": found.b}
    record_comparison({**what, **fingerprints, "difference": found.difference, **said})


def fingerprint(result: Result) -> str:
    """What the ledger knows the result's model by."""
    return result.settings.get("model_fingerprint") or result.model


def contents(result: Result) -> str:
    """What the ledger knows the result's suite by."""
    return (result.settings.get("suite") or {}).get("fingerprint") or result.suite
