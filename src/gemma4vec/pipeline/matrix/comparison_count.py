"""The number of comparisons for which a matrix corrects its p-values: its own, and all others on its suites.

The ledger counts models (docs/concepts/ledger.md). A matrix averages all seeds of a recipe, so they count as one model
here.
"""

from collections.abc import Mapping, Sequence

from gemma4vec.evaluation.comparison.comparison_count import count_family_of_results, fingerprint
from gemma4vec.evaluation.results.result import Result


def count_comparisons(
    results: Mapping[str, Sequence[Sequence[Result]]], controls: Sequence[tuple[str, str]], metric: str, own: int
) -> int:
    """The number of comparisons to correct for: the largest over the suites, at least `own`.

    Args:
        results: variant -> for each run, its results on all suites.
        controls: pairs of a variant and its control.
        own: number of comparisons in the matrix or plan itself.
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
            for name, control in controls
            if name != control and name in variants and control in variants
        ]
        if pairs:
            family = count_family_of_results(pairs, metric)
            prints = {fingerprint(result) for found in variants.values() for result in found}
            models = family.models - (len(prints) - len(variants))
            size = max(size, models - 1, family.pairs)
    return size
