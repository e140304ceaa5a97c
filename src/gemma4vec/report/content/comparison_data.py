"""Contents of the page about several runs: seeds grouped by recipe, each recipe compared with the first one.

Everything comes from run folders. A missing part is listed in `missing` and is not an error.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gemma4vec.errors import InputError
from gemma4vec.evaluation.comparison.comparable import check_comparable, check_limits
from gemma4vec.evaluation.comparison.compare_seeds import ResultGroup, average_runs, check_same_queries
from gemma4vec.evaluation.comparison.comparison_count import contents
from gemma4vec.evaluation.comparison.corrected import compare_groups
from gemma4vec.evaluation.comparison.paired import Comparison, largest_differences
from gemma4vec.evaluation.results.marks import model_marks, suite_marks
from gemma4vec.evaluation.results.result import Result
from gemma4vec.evaluation.results.task_scores import PAIRED
from gemma4vec.ledger.comparison_count import ComparisonFamily
from gemma4vec.ledger.overview import flatten
from gemma4vec.ledger.records import recipe_tree
from gemma4vec.report.content.comparison_notes import list_comparison_notes
from gemma4vec.report.content.run_data import PRIMARY, RunData, SuiteResults, find_bm25, primary_metric, read_run
from gemma4vec.report.content.training_log import number
from gemma4vec.statistics.multiplicity import Correction
from gemma4vec.statistics.student import t_interval

REFERENCES = {"bm25": "BM25", "untrained": "untrained base"}
NOT_COMPARED = {"name", "seed", "hypothesis"}


@dataclass
class Group:
    """The runs of one recipe, in the order of the arguments.

    Attributes:
        label: the recipe's name, with a suffix if two recipes have the same name.
        runs: one run for each seed.
    """

    label: str
    recipe_id: str
    runs: list[RunData]

    @property
    def seeds(self) -> list[int | None]:
        """Seed of each run; None if unknown."""
        return [run.manifest.get("seed") for run in self.runs]

    def cost(self) -> dict[str, float | None]:
        """Return means over runs of "seconds" and "tokens" of training, and the largest peak "memory" in bytes."""
        logs = [run.training for run in self.runs]
        seconds = [log.steps[-1].seconds for log in logs if log.steps]
        tokens = [log.steps[-1].tokens for log in logs if log.steps]
        memory = [size for log in logs if (size := number((log.finished or {}).get("peak_memory_bytes"))) is not None]
        return {"seconds": _mean(seconds), "tokens": _mean(tokens), "memory": max(memory, default=None)}


@dataclass
class Row:
    """One line of a suite's table: a recipe, or a reference such as BM25."""

    label: str
    kind: str
    result: Result
    seeds: int = 1
    spread: tuple[float, float] | None = None
    """Smallest and largest mean of the seeds."""


@dataclass
class TaskDifference:
    """One recipe minus the first one on one task. For exploration: without p-values."""

    task: str
    label: str
    mean: float
    low: float
    high: float
    queries: int


@dataclass
class SuiteSection:
    """The contents of the page about one suite."""

    name: str
    metric: str
    rows: list[Row]
    comparisons: list[tuple[str, str, Comparison]]
    """(label of A, label of B, A minus B). Either B is the first recipe, or A is and B is a reference."""
    family: ComparisonFamily | None
    tasks: list[TaskDifference]
    notes: list[str]
    results: SuiteResults
    """Results for the examples: the best recipe as "trained", the first one as "other"."""


@dataclass
class RunComparison:
    """The contents of the page about several runs."""

    groups: list[Group]
    suites: list[SuiteSection]
    differing: list[tuple[str, list[str]]]
    missing: list[str] = field(default_factory=list)


def read_comparison(
    folders: Sequence[Path], correction: Correction = "holm", *, only_known: bool = False
) -> RunComparison:
    """Read runs, and compare every recipe with the first one on each suite that has results of both.

    With `only_known`, comparisons that the ledger has already are shown, and nothing is recorded.

    Raises:
        InputError: a folder is not a run, or fewer than two runs are given.
        NotComparedError: `only_known`, and the ledger lacks a comparison.
    """
    if len({folder.resolve() for folder in folders}) < 2:
        raise InputError("a comparison needs two or more different runs; list them all after `report`")
    runs = [read_run(folder, compared=False) for folder in dict.fromkeys(folder.resolve() for folder in folders)]
    groups = _group_runs(runs)
    missing = [f"{run.run_id}: {sentence}" for run in runs for sentence in run.missing]
    known = [suite for run in runs for suite in run.suites]
    # Retrieval first: the headline is about the first suite.
    known.sort(key=lambda suite: not all(PRIMARY in result.metrics for result in suite.results.values()))
    names = dict.fromkeys(suite.name for suite in known)
    suites = [
        section for name in names if (section := _section(name, groups, correction, missing, only_known)) is not None
    ]
    if not suites:
        missing.append("No run has a result of its trained model; evaluate one with: gemma4vec eval RUN")
    return RunComparison(groups, suites, _find_differences(groups), missing)


def _group_runs(runs: Sequence[RunData]) -> list[Group]:
    by_recipe: dict[str, list[RunData]] = {}
    for run in runs:
        by_recipe.setdefault(str(run.manifest.get("recipe_id") or run.run_id), []).append(run)
    names = [str(found[0].manifest.get("name") or found[0].run_id) for found in by_recipe.values()]
    groups = []
    for name, (recipe, found) in zip(names, by_recipe.items(), strict=True):
        unique = name if names.count(name) == 1 else f"{name} {_distinguish(found[0], recipe)}"
        groups.append(Group(unique, recipe, found))
    return groups


def _distinguish(run: RunData, recipe: str) -> str:
    """Return a suffix that distinguishes recipes with the same name."""
    return recipe[:8] if recipe != run.run_id else run.run_id[-4:]


def _section(
    name: str, groups: Sequence[Group], correction: Correction, missing: list[str], only_known: bool
) -> SuiteSection | None:
    sides = {group.label: side for group in groups if (side := _select_results(group, name, missing)) is not None}
    if not sides:
        return None
    first = next(iter(sides))
    metric = primary_metric(sides[first].results[0])
    for group in groups:
        if group.label not in sides:
            missing.append(f"{group.label} was not evaluated on {name}.")
    references = _find_references(name, groups, sides[first].results[0])
    if "bm25" not in references and metric == PRIMARY:
        missing.append(f"BM25 was not evaluated on {name}; to add its row, run: gemma4vec eval bm25 --suite DIR")
    comparable, notes = _select_comparable(sides, references, first, metric)
    compared, family = (
        compare_groups([pair for _, _, pair in comparable], metric, correction=correction, only_known=only_known)
        if comparable
        else ([], None)
    )
    rows = [_row(label, side, metric) for label, side in sides.items()]
    rows += [Row(REFERENCES[kind], kind, result) for kind, result in references.items()]
    comparisons = [(a, b, one) for (a, b, _), one in zip(comparable, compared, strict=True)]
    notes = [*_mark_scores(sides, references), *_note_comparisons(comparisons), *notes]
    against_first = [(a, pair) for a, b, pair in comparable if b == first and metric == PRIMARY]
    tasks = [row for a, (ours, theirs) in against_first for row in _task_differences(a, ours, theirs, metric)]
    return SuiteSection(
        name, metric, rows, comparisons, family, tasks, notes, _select_examples(name, groups, sides, rows, metric)
    )


def _select_results(group: Group, suite: str, missing: list[str]) -> ResultGroup | None:
    found: list[tuple[RunData, Result]] = []
    for run, results in _trained_results(group, suite):
        one = results.results["trained"]
        try:
            if found:
                check_same_queries(found[0][1], one)
                check_limits(found[0][1], one)
        except InputError as error:
            missing.append(f"{run.run_id} is left out of {group.label} on {suite}: {error}.")
            continue
        found.append((run, one))
    if not found:
        return None
    if found[0][1].kind in PAIRED:
        found = found[:1]  # a metric of all pairs together has no per-query mean over seeds
    return ResultGroup([result for _, result in found], [run.manifest.get("seed") for run, _ in found])


def _trained_results(group: Group, suite: str) -> list[tuple[RunData, SuiteResults]]:
    """Return (run, its results on the suite) for each run whose trained model was evaluated on it."""
    results = [(run, one) for run in group.runs for one in run.suites if one.name == suite]
    return [(run, one) for run, one in results if "trained" in one.results]


def _find_references(suite: str, groups: Sequence[Group], like: Result) -> dict[str, Result]:
    """Find results of BM25 and the untrained base on the same contents: of the runs, else below `HOME/evals/`."""
    found: dict[str, Result] = {}
    for group in groups:
        for run in group.runs:
            for one in run.suites:
                for kind in REFERENCES:
                    result = one.results.get(kind) if one.name == suite else None
                    if result is not None and contents(result) == contents(like):
                        found.setdefault(kind, result)
    if "bm25" not in found and (kept := find_bm25(like)) is not None:
        found["bm25"] = kept[1]
    return {kind: found[kind] for kind in REFERENCES if kind in found}


def _select_comparable(
    sides: Mapping[str, ResultGroup], references: Mapping[str, Result], first: str, metric: str
) -> tuple[list[tuple[str, str, tuple[ResultGroup, ResultGroup]]], list[str]]:
    """Return the pairs that can be compared, and a note for each pair that cannot."""
    pairs = [(label, first, (side, sides[first])) for label, side in sides.items() if label != first]
    pairs += [
        (first, REFERENCES[kind], (sides[first], ResultGroup([result], [None]))) for kind, result in references.items()
    ]
    comparable, notes = [], []
    for a, b, (ours, theirs) in pairs:
        try:
            differing = check_comparable(average_runs(ours.results), average_runs(theirs.results), metric)
        except InputError as error:
            notes.append(f"{a} is not compared with {b}: {error}.")
            continue
        comparable.append((a, b, (ours, theirs)))
        notes += [
            f"Setting {name} differs: {a} {ours_}, {b} {theirs_}." for name, (ours_, theirs_) in differing.items()
        ]
    return comparable, notes


def _mark_scores(sides: Mapping[str, ResultGroup], references: Mapping[str, Result]) -> list[str]:
    """Return the marks of the scores, one sentence each; those of the suite come once."""
    shown = [(label, one) for label, side in sides.items() for one in side.results]
    shown += [(REFERENCES[kind], result) for kind, result in references.items()]
    marks = [f"{label}: {mark}." for label, one in shown for mark in model_marks(one)]
    return list(dict.fromkeys([*marks, *(f"{mark}." for mark in suite_marks(shown[0][1]))]))


def _note_comparisons(comparisons: Sequence[tuple[str, str, Comparison]]) -> list[str]:
    by_side: dict[str, list[tuple[str, Comparison]]] = {}
    for a, b, one in comparisons:
        by_side.setdefault(a, []).append((b, one))
    return [note for a, own in by_side.items() for note in list_comparison_notes(own, a)]


def _row(label: str, side: ResultGroup, metric: str) -> Row:
    means = [result.mean[metric] for result in side.results]
    spread = (min(means), max(means)) if len(means) > 1 else None
    return Row(label, "trained", average_runs(side.results), len(means), spread)


def _task_differences(label: str, ours: ResultGroup, theirs: ResultGroup, metric: str) -> list[TaskDifference]:
    keys, ours_N = average_runs(ours.results).values(metric)
    difference_N = ours_N - average_runs(theirs.results).values(metric)[1]
    rows = []
    for task in dict.fromkeys(task for task, _ in keys):
        own = [place for place, (name, _) in enumerate(keys) if name == task]
        one = t_interval(difference_N[own])
        rows.append(TaskDifference(task, label, one.mean, one.low, one.high, one.n))
    return rows


def _select_examples(
    name: str, groups: Sequence[Group], sides: Mapping[str, ResultGroup], rows: Sequence[Row], metric: str
) -> SuiteResults:
    """Select the results for examples: first runs of the best recipe ("trained") and of the first one ("other").

    If the first recipe is the best, "other" is the next one. The page shows these queries without a verdict.
    """
    first = next(iter(sides))
    best = max(sides, key=lambda label: average_runs(sides[label].results).mean[metric])
    other = first if best != first else next((label for label in sides if label != first), "")
    found = SuiteResults(name, {}, {})
    for key, label in (("trained", best), ("other", other)):
        for group in groups:
            if group.label == label:
                _, one = _trained_results(group, name)[0]
                found.results[key], found.tops[key] = one.results["trained"], one.tops.get("trained", {})
    found.names = {"trained": best, "other": other}
    if len(found.results) == 2 and metric == PRIMARY:
        with contextlib.suppress(InputError):  # the notes say why they cannot be compared
            found.largest["other"] = largest_differences(found.results["trained"], found.results["other"], metric)
    return found


def _find_differences(groups: Sequence[Group]) -> list[tuple[str, list[str]]]:
    """Return (key, value in each group) for recipe keys and data hashes that differ."""
    trees = [{**flatten(recipe_tree(group.runs[0].recipe_text)), **_data(group.runs[0].manifest)} for group in groups]
    names = dict.fromkeys(name for tree in trees for name in tree if name.split(".")[0] not in NOT_COMPARED)
    rows = [(name, ["-" if tree.get(name) is None else str(tree[name]) for tree in trees]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def _data(manifest: Mapping[str, Any]) -> dict[str, Any]:
    stages = manifest.get("data")
    return {
        f"data {stage} {name}": f"{source.get('rows', '?')} rows, {str(source['content_hash'])[:12]}"
        for stage, sources in (stages.items() if isinstance(stages, dict) else ())
        for name, source in (sources.items() if isinstance(sources, dict) else ())
        if isinstance(source, dict) and source.get("content_hash")
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
