"""How many comparisons a matrix's verdicts are corrected for: its own, and whatever else was tried on its suites.

The ledger counts models (docs/concepts/ledger.md). Seeds of one recipe, of which all are averaged, are one try and not
several; the matrix's own models are counted that way here.
"""

from collections.abc import Mapping, Sequence

from gemma4vec.evaluation.comparison.comparison_count import count_family_of_results, fingerprint
from gemma4vec.evaluation.results.result import Result


def matrix_family(
    results: Mapping[str, Sequence[Sequence[Result]]], controls: Mapping[str, str], metric: str, own: int
) -> int:
    """Size of the family of all comparisons with controls: the largest over the suites, at least `own`.

    Args:
        results: variant -> for each of its runs, the results on every final suite.
        controls: variant -> the one that it is compared with.
        own: comparisons that the matrix itself makes.
    """
    by_suite: dict[str, dict[str, list[Result]]] = {}
    for variant, runs in results.items():
        for run in runs:
            for result in run:
                by_suite.setdefault(result.suite, {}).setdefault(variant, []).append(result)
    size = own
    for variants in by_suite.values():
        pairs = [
            (variants[name][0], variants[control][0])
            for name, control in controls.items()
            if name != control and name in variants and control in variants
        ]
        if pairs:
            family = count_family_of_results(pairs, metric)
            prints = {fingerprint(result) for found in variants.values() for result in found}
            models = family.models - (len(prints) - len(variants))
            size = max(size, models - 1, family.pairs)
    return size
