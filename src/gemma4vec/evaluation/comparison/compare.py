"""Compare two evaluations: corrected for the tries that the ledger counts, and recorded there."""

from collections.abc import Sequence
from pathlib import Path

from gemma4vec.errors import InputError
from gemma4vec.evaluation.comparison.compare_seeds import load_group
from gemma4vec.evaluation.comparison.corrected import compare_groups
from gemma4vec.evaluation.comparison.paired import Comparison
from gemma4vec.evaluation.results.result import Result

Results = Result | Path | Sequence[Result | Path]
"""One result or several, each as a `Result` or as its folder."""


def compare(
    a: Results,
    b: Results,
    metric: str | None = None,
    *,
    seed: int = 0,
    margin: float | None = None,
    no_worse_than: float | None = None,
    allow_different_settings: bool = False,
) -> Comparison:
    """Compare two evaluations query by query; the difference is A - B. The same as `gemma4vec compare`.

    The p-value is corrected for the family that the ledger counts on this suite, and the ledger records the comparison
    (docs/concepts/ledger.md).

    Args:
        a, b: a result or its folder; several of one recipe's runs are averaged query by query. Seeds are paired if
            the folders are inside runs. From 6 seeds a side the verdict speaks of the recipes, if the ledger knows no
            other run of them; `scope` says so.
        metric: one that both have; None is the suite's main metric.
        seed: of the random sign flips.
        margin: differences below it do not matter; required for the verdict "equivalent".
        no_worse_than: also test whether A is worse than B by less than this.
        allow_different_settings: compare even if the models truncate texts at different lengths.

    Returns:
        The comparison, whose `verdict.p` is corrected (`test.p` is not) for `family`. Queries that training data
        touches are left out of it.

    Raises:
        InputError: as `compare_groups`; a margin that is not above zero; a side without results.
    """
    for name, value in (("margin", margin), ("no_worse_than", no_worse_than)):
        if value is not None and not value > 0:
            raise InputError(f"{name} {value}: give a number above zero, such as 0.01")
    (found,), _ = compare_groups(
        [(load_group(_listed(a)), load_group(_listed(b)))],
        metric,
        seed=seed,
        margin=margin,
        no_worse_than=no_worse_than,
        allow_different_settings=allow_different_settings,
    )
    return found


def _listed(side: Results) -> Sequence[Result | Path]:
    found = [side] if isinstance(side, Result | Path) else list(side)
    if not found:
        raise InputError("a side without results; give a result, its folder, or several of one recipe's runs")
    return found
