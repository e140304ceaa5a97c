"""Differences from Python: `compare`."""

from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from gemma4vec.api.display import Showing, Shown
from gemma4vec.api.runs import Run
from gemma4vec.api.scoring import Result
from gemma4vec.data.suites.kinds import name_items
from gemma4vec.errors import InputError
from gemma4vec.evaluation.comparison import compare as corrected
from gemma4vec.evaluation.comparison import paired
from gemma4vec.evaluation.comparison.find_results import find_results, runs_of_recipe
from gemma4vec.evaluation.results.task_scores import PAIRED
from gemma4vec.files import home
from gemma4vec.statistics.bootstrap import Interval
from gemma4vec.statistics.verdict import Word, format_p

ResultLike = Result | Run | str | Path


class Comparison(Showing):
    """A minus B on one metric, query by query; `compare` returns one.

    Attributes:
        comparison: all that is known, for the rest of the package.
        folder_a, folder_b: of the results.
    """

    def __init__(self, comparison: paired.Comparison, folders_a: Sequence[Path], folders_b: Sequence[Path]):
        self.comparison = comparison
        self.folders_a, self.folders_b = list(folders_a), list(folders_b)

    @property
    def verdict(self) -> Word:
        """ "better", "worse" or "equivalent", said of A, or "undetermined"."""
        return self.comparison.verdict.word

    @property
    def difference(self) -> float:
        """The mean difference A - B."""
        return self.comparison.difference

    @property
    def interval(self) -> Interval:
        """The 95% interval of the difference: `mean`, `low`, `high`."""
        return self.comparison.interval

    @property
    def p(self) -> float:
        """The verdict's p-value, corrected for the family that the ledger counts.

        From 6 seeds a side it covers seeds and queries and speaks of the recipes; else it is that of the paired
        sign-flip test over queries and speaks of these runs (`scope`).
        """
        return self.comparison.verdict.p

    @property
    def family(self) -> int:
        """The number of comparisons that p is corrected for, this one included."""
        return self.comparison.verdict.family

    @property
    def smallest_detectable(self) -> float:
        """The mean difference that these queries would find four times out of five."""
        return self.comparison.smallest_detectable

    @property
    def scope(self) -> str:
        """What the verdict speaks of, the recipes or these runs only, in one sentence."""
        return self.comparison.scope.sentence if self.comparison.scope else ""

    @property
    def cautions(self) -> list[str]:
        """What the figures must not be shown without: degenerate rankings, further looks, margins stated late."""
        return list(self.comparison.cautions)

    @property
    def sentence(self) -> str:
        """The result in one sentence."""
        return self.comparison.sentence()

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON values; the same as `gemma4vec compare --json` prints."""
        places = {"folder_a": _joined(self.folders_a), "folder_b": _joined(self.folders_b)}
        return {**self.comparison.as_dict(), **places}

    def _shown(self) -> Shown:
        found = self.comparison
        return Shown(comparison_title(found), ["", found.metric], comparison_rows(found), comparison_lines(found))


def compare(
    a: ResultLike | Sequence[ResultLike],
    b: ResultLike | Sequence[ResultLike],
    metric: str | None = None,
    *,
    suite: str | None = None,
    margin: float | None = None,
    no_worse_than: float | None = None,
    allow_different_settings: bool = False,
    seed: int = 0,
) -> Comparison:
    """Ask whether the difference between two evaluations is more than noise. The same as `gemma4vec compare`.

    p is corrected for the tries that the ledger counts on this suite, and the ledger records the comparison.

    Args:
        a: a result of `evaluate`, a run, a folder, or a name below `$GEMMA4VEC_HOME/evals` such as "bm25". A list of
            several runs of one recipe is averaged query by query; "recipe:ID" is all its runs.
        b: what `a` is compared with, in the same forms. The difference is A - B.
        metric: one that both have; None is the suite's own.
        suite: which one, where runs or folders have several in common.
        margin: differences below it do not matter; only with it can the verdict be "equivalent".
        no_worse_than: ask too whether A is worse than B by less than this.
        allow_different_settings: compare even where texts were cut at different lengths.
        seed: of the random sign flips.

    Returns:
        The comparison: `verdict`, `difference`, `interval`, `p`, `scope`, `sentence`. Queries that training data
        touches are left out of it.

    Raises:
        InputError: no such result, different suites or queries, the same result on both sides.

    Example:
        >>> import gemma4vec as g4v
        >>> found = g4v.compare(run, "bm25")
        >>> found.verdict in ("better", "worse", "undetermined")
        True
    """
    specs_a, specs_b = specs_of(a), specs_of(b)
    folders = find_results([*specs_a, *specs_b], home(), suite)
    folders_a, folders_b = folders[: len(specs_a)], folders[len(specs_a) :]
    found = corrected.compare(
        folders_a,
        folders_b,
        metric,
        seed=seed,
        margin=margin,
        no_worse_than=no_worse_than,
        allow_different_settings=allow_different_settings,
    )
    return Comparison(found, folders_a, folders_b)


def comparison_title(found: paired.Comparison) -> str:
    """The suite and the number of items that the figures are of."""
    return f"{found.suite}, {found.test.n:,} {name_items(found.kind, found.test.n)}"


def comparison_rows(found: paired.Comparison) -> list[list[object]]:
    """Rows of the table of a comparison: a name and a figure each."""
    interval, detectable = found.interval, found.smallest_detectable
    has_width = interval.high > interval.low
    of_pairs = found.kind in PAIRED
    higher = "A closer to the labels, B closer, equal" if of_pairs else "A higher, B higher, equal"
    basis = "over seeds and queries" if found.scope and found.scope.of == "recipes" else "of these runs"
    return [
        [f"A  {found.a}", found.mean_a],
        [f"B  {found.b}", found.mean_b],
        ["A - B", f"{interval.mean:+.4f}"],
        ["95% interval of A - B", f"{interval.low:+.4f} to {interval.high:+.4f}" if has_width else "none"],
        [f"p {basis}, corrected", format_p(found.verdict.p)],
        ["corrected for", found.family.sentence() if found.family else "unknown"],
        [f"p of these runs ({'rank swaps' if of_pairs else 'paired sign-flip'}), uncorrected", format_p(found.test.p)],
        [f"{name_items(found.kind)}: {higher}", f"{found.wins:,}, {found.losses:,}, {found.ties:,}"],
        ["smallest detectable difference", f"{detectable:.4f}" if has_width and isfinite(detectable) else "unknown"],
    ]


def comparison_lines(found: paired.Comparison) -> list[str]:
    """Sentences below the table: the verdict first, then what it speaks of and what weakens it."""
    asked = found.no_worse
    lines = [found.sentence()]
    if asked is not None:
        lines.append(f"no worse than {asked.margin:g}? {asked.reason}{f' ({asked.note})' if asked.note else ''}")
    if found.scope:
        lines.append(f"seeds: {found.scope.sentence}")
    if found.touched:
        lines.append(f"warning: {found.touched.sentence()}")
    lines += [f"warning: {caution}" for caution in found.cautions]
    differing = found.differing_settings.items()
    return [*lines, *(f"differs: {name}: A {value_a}, B {value_b}" for name, (value_a, value_b) in differing)]


def specs_of(side: ResultLike | Sequence[ResultLike]) -> list[str]:
    """The runs or results that one side names, as `find_results` takes them."""
    listed = [side] if isinstance(side, Result | Run | str | Path) else list(side)
    specs: list[str] = []
    for one in listed:
        if isinstance(one, Result | Run):
            specs.append(str(one.folder))
        elif str(one).startswith("recipe:"):
            specs += runs_of_recipe(str(one).removeprefix("recipe:"), home())
        else:
            specs.append(str(one))
    if not specs:
        raise InputError("a side names no result; give a result, a run, a folder, or a name such as bm25")
    return specs


def _joined(folders: Sequence[Path]) -> str:
    return ", ".join(str(folder) for folder in folders)
