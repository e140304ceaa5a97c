"""What several runs have to say beside each other: seeds of one recipe together, every other recipe against the first.

Read from run folders; what a run lacks is named and not fatal.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gemma4vec.errors import InputError
from gemma4vec.evaluation.comparison.compare_seeds import ResultGroup, average_runs, check_same_queries, compare_groups
from gemma4vec.evaluation.comparison.comparison_count import contents
from gemma4vec.evaluation.comparison.paired import Comparison, check_comparable, check_limits, largest_differences
from gemma4vec.evaluation.results.result import Result, load_result
from gemma4vec.evaluation.results.task_scores import PAIRED
from gemma4vec.files import home
from gemma4vec.ledger.comparison_count import ComparisonFamily
from gemma4vec.ledger.overview import flatten
from gemma4vec.ledger.records import recipe_tree
from gemma4vec.report.content.run_data import PRIMARY, RunData, SuiteResults, primary_of, read_run
from gemma4vec.report.content.training_log import number
from gemma4vec.statistics.multiplicity import Correction
from gemma4vec.statistics.student import t_interval

REFERENCES = {"bm25": "BM25", "untrained": "untrained base"}
NOT_COMPARED = {"name", "seed", "hypothesis"}


@dataclass
class Group:
    """The runs of one recipe, in the order in which they were named.

    Attributes:
        label: the recipe's name, made different from the others' where two recipes share one.
        runs: one for each seed.
    """

    label: str
    recipe_id: str
    runs: list[RunData]

    @property
    def seeds(self) -> list[int | None]:
        """Of the runs."""
        return [run.manifest.get("seed") for run in self.runs]

    def cost(self) -> dict[str, float | None]:
        """Means over runs: "seconds" and "tokens" of training, "memory" in bytes at the peak."""
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
    """Smallest and largest mean between seeds."""


@dataclass
class TaskDifference:
    """One recipe minus the first on one task: an exploration, without p-values."""

    task: str
    label: str
    mean: float
    low: float
    high: float
    queries: int


@dataclass
class SuiteSection:
    """Everything about one suite."""

    name: str
    metric: str
    rows: list[Row]
    comparisons: list[tuple[str, str, Comparison]]
    """(label of A, label of B, A minus B); A is a recipe and B the first one, or A the first one and B a reference."""
    family: ComparisonFamily | None
    tasks: list[TaskDifference]
    notes: list[str]
    results: SuiteResults
    """Of the examples: the recipe with the highest score as "trained", and the first one."""


@dataclass
class RunComparison:
    """All that the page about several runs shows."""

    groups: list[Group]
    suites: list[SuiteSection]
    differing: list[tuple[str, list[str]]]
    missing: list[str] = field(default_factory=list)


def read_comparison(folders: Sequence[Path], correction: Correction = "holm") -> RunComparison:
    """Read runs and compare every recipe with the first one's, on every suite that both were evaluated on.

    Raises:
        InputError: one of them is no run folder, or they are fewer than two.
    """
    if len({folder.resolve() for folder in folders}) < 2:
        raise InputError("a report that compares needs two or more different runs; name them all after `report`")
    runs = [read_run(folder, compared=False) for folder in dict.fromkeys(folder.resolve() for folder in folders)]
    groups = _grouped(runs)
    missing = [f"{run.run_id}: {said}" for run in runs for said in run.missing]
    known = [suite for run in runs for suite in run.suites]
    # Retrieval first: the page's sentence is about the first suite.
    known.sort(key=lambda suite: not all(PRIMARY in result.metrics for result in suite.results.values()))
    names = dict.fromkeys(suite.name for suite in known)
    suites = [section for name in names if (section := _section(name, groups, correction, missing)) is not None]
    if not suites:
        missing.append("None of these runs has a result of its trained model; make some with: gemma4vec eval RUN")
    return RunComparison(groups, suites, _differing(groups), missing)


def _grouped(runs: Sequence[RunData]) -> list[Group]:
    by_recipe: dict[str, list[RunData]] = {}
    for run in runs:
        by_recipe.setdefault(str(run.manifest.get("recipe_id") or run.run_id), []).append(run)
    names = [str(found[0].manifest.get("name") or found[0].run_id) for found in by_recipe.values()]
    groups = []
    for name, (recipe, found) in zip(names, by_recipe.items(), strict=True):
        unique = name if names.count(name) == 1 else f"{name} {_short(found[0], recipe)}"
        groups.append(Group(unique, recipe, found))
    return groups


def _short(run: RunData, recipe: str) -> str:
    """What tells recipes of one name apart."""
    return recipe[:8] if recipe != run.run_id else run.run_id[-4:]


def _section(name: str, groups: Sequence[Group], correction: Correction, missing: list[str]) -> SuiteSection | None:
    sides = {group.label: side for group in groups if (side := _side(group, name, missing)) is not None}
    if not sides:
        return None
    first = next(iter(sides))
    metric = primary_of(sides[first].results[0])
    for group in groups:
        if group.label not in sides:
            missing.append(f"{group.label} was not evaluated on {name}.")
    references = _references(name, groups, sides[first].results[0])
    if "bm25" not in references and metric == PRIMARY:
        missing.append(f"BM25 was not evaluated on {name}: gemma4vec eval bm25 --suite DIR adds its row.")
    fair, notes = _fair(sides, references, first, metric)
    compared, family = (
        compare_groups([pair for _, _, pair in fair], metric, correction=correction) if fair else ([], None)
    )
    rows = [_row(label, side, metric) for label, side in sides.items()]
    rows += [Row(REFERENCES[kind], kind, result) for kind, result in references.items()]
    comparisons = [(a, b, one) for (a, b, _), one in zip(fair, compared, strict=True)]
    against_first = [(a, pair) for a, b, pair in fair if b == first and metric == PRIMARY]
    tasks = [row for a, (ours, theirs) in against_first for row in _task_rows(a, ours, theirs, metric)]
    return SuiteSection(
        name, metric, rows, comparisons, family, tasks, notes, _examples(name, groups, sides, rows, metric)
    )


def _side(group: Group, suite: str, missing: list[str]) -> ResultGroup | None:
    found: list[tuple[RunData, Result]] = []
    for run, results in _trained(group, suite):
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
        found = found[:1]  # one figure of all pairs has no mean over seeds, query by query
    return ResultGroup([result for _, result in found], [run.manifest.get("seed") for run, _ in found])


def _trained(group: Group, suite: str) -> list[tuple[RunData, SuiteResults]]:
    """Each run that has a result of its trained model on the suite, with its results there."""
    results = [(run, one) for run in group.runs for one in run.suites if one.name == suite]
    return [(run, one) for run, one in results if "trained" in one.results]


def _references(suite: str, groups: Sequence[Group], like: Result) -> dict[str, Result]:
    """BM25 and the untrained base on the same contents, from any of the runs, else from the outputs' home."""
    found: dict[str, Result] = {}
    for group in groups:
        for run in group.runs:
            for one in run.suites:
                for kind in REFERENCES:
                    result = one.results.get(kind) if one.name == suite else None
                    if result is not None and contents(result) == contents(like):
                        found.setdefault(kind, result)
    if "bm25" not in found:
        for metrics in sorted((home() / "evals").glob("bm25*/*/metrics.json")):
            try:
                result = load_result(metrics.parent)
            except InputError:
                continue  # a result of somebody else's; this page can do without
            if contents(result) == contents(like):
                found["bm25"] = result
                break
    return {kind: found[kind] for kind in REFERENCES if kind in found}


def _fair(
    sides: Mapping[str, ResultGroup], references: Mapping[str, Result], first: str, metric: str
) -> tuple[list[tuple[str, str, tuple[ResultGroup, ResultGroup]]], list[str]]:
    """The pairs that may be compared, and why others may not."""
    pairs = [(label, first, (side, sides[first])) for label, side in sides.items() if label != first]
    pairs += [
        (first, REFERENCES[kind], (sides[first], ResultGroup([result], [None]))) for kind, result in references.items()
    ]
    fair, notes = [], []
    for a, b, (ours, theirs) in pairs:
        try:
            differing = check_comparable(average_runs(ours.results), average_runs(theirs.results), metric)
        except InputError as error:
            notes.append(f"{a} is not compared with {b}: {error}.")
            continue
        fair.append((a, b, (ours, theirs)))
        notes += [
            f"Setting {name} differs: {a} {ours_}, {b} {theirs_}." for name, (ours_, theirs_) in differing.items()
        ]
    return fair, notes


def _row(label: str, side: ResultGroup, metric: str) -> Row:
    means = [result.mean[metric] for result in side.results]
    spread = (min(means), max(means)) if len(means) > 1 else None
    return Row(label, "trained", average_runs(side.results), len(means), spread)


def _task_rows(label: str, ours: ResultGroup, theirs: ResultGroup, metric: str) -> list[TaskDifference]:
    keys, ours_N = average_runs(ours.results).values(metric)
    difference_N = ours_N - average_runs(theirs.results).values(metric)[1]
    rows = []
    for task in dict.fromkeys(task for task, _ in keys):
        own = [place for place, (name, _) in enumerate(keys) if name == task]
        one = t_interval(difference_N[own])
        rows.append(TaskDifference(task, label, one.mean, one.low, one.high, one.n))
    return rows


def _examples(
    name: str, groups: Sequence[Group], sides: Mapping[str, ResultGroup], rows: Sequence[Row], metric: str
) -> SuiteResults:
    """The best recipe's first run as "trained" against the first recipe's; against another where the first is best.

    Queries to look at, not a comparison with a verdict.
    """
    first = next(iter(sides))
    best = max(sides, key=lambda label: average_runs(sides[label].results).mean[metric])
    other = first if best != first else next((label for label in sides if label != first), "")
    found = SuiteResults(name, {}, {})
    for key, label in (("trained", best), ("other", other)):
        for group in groups:
            if group.label == label:
                _, one = _trained(group, name)[0]
                found.results[key], found.tops[key] = one.results["trained"], one.tops.get("trained", {})
    found.names = {"trained": best, "other": other}
    if len(found.results) == 2 and metric == PRIMARY:
        with contextlib.suppress(InputError):  # why they cannot be compared stands among the notes
            found.largest["other"] = largest_differences(found.results["trained"], found.results["other"], metric)
    return found


def _differing(groups: Sequence[Group]) -> list[tuple[str, list[str]]]:
    """Keys of the recipes whose values differ, with the value of each; and of the data, by their hashes."""
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
