"""Where each of several runs fails: its stored inspections of the suites that it is compared on, or how to make one."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gemma4vec.evaluation.results.result import Result
from gemma4vec.report.content.comparison_data import RunComparison
from gemma4vec.report.content.run_data import PRIMARY, RunData, suite_place
from gemma4vec.ui.content.flipped import why_not
from gemma4vec.ui.content.stored_inspections import StoredInspection, same_contents


@dataclass(frozen=True)
class RunFailures:
    """One run on one suite.

    Attributes:
        found: its inspections of the suite's contents, newest first.
        command: makes one, where there is none.
        note: why there is no command.
        unplaced: whether the command has DIR in place of the suite's folder, which nobody recorded.
        beside: id of the run that it is inspected against, where the row is of the two of them.
    """

    run_id: str
    suite: str
    found: list[StoredInspection] = field(default_factory=list)
    command: str = ""
    note: str = ""
    unplaced: bool = False
    beside: str | None = None


def find_failures(compared: RunComparison, stored: Iterable[StoredInspection]) -> list[RunFailures]:
    """Each compared run on each suite of the comparison that has retrieval scores of it.

    Of two runs, the worse one beside the better one comes first: where it loses is what a comparison asks.
    """
    known = list(stored)
    runs = [run for group in compared.groups for run in group.runs]
    suites = [section.name for section in compared.suites if section.metric == PRIMARY]
    results = [(run, name, _result(run, name)) for name in suites for run in runs]
    alone = [_failures(run, name, result, known) for run, name, result in results if result is not None]
    paired = [one for name in suites for one in _beside(name, results, known)] if len(runs) == 2 else []
    return [*paired, *alone]


def _result(run: RunData, suite: str) -> Result | None:
    found = (one.results.get("trained") for one in run.suites if one.name == suite)
    return next((one for one in found if one is not None), None)


def _failures(run: RunData, suite: str, result: Result, stored: Sequence[StoredInspection]) -> RunFailures:
    of_suite = same_contents(result.contents, stored)
    folder = run.path.resolve()
    own = [
        one for one in of_suite if one.about["model"]["name"] == run.run_id or folder in one.folder.resolve().parents
    ]
    if own:
        return RunFailures(run.run_id, suite, own)
    if why := why_not(result):
        return RunFailures(run.run_id, suite, note=why)
    return RunFailures(run.run_id, suite, **_command(run, suite, of_suite))


def _beside(
    suite: str, scored: Sequence[tuple[RunData, str, Result | None]], stored: Sequence[StoredInspection]
) -> list[RunFailures]:
    """The worse of two runs beside the better one; nothing where one of them has no scores."""
    both = [(run, result) for run, name, result in scored if name == suite and result is not None]
    if len(both) < 2:
        return []
    (better, _), (worse, result) = sorted(both, key=lambda one: -one[1].mean[PRIMARY])
    of_suite = same_contents(result.contents, stored)
    pair = {better.run_id, worse.run_id}
    own = [one for one in of_suite if {one.about["model"]["name"], (one.about["against"] or {}).get("name")} == pair]
    if own:
        return [RunFailures(worse.run_id, suite, own, beside=better.run_id)]
    if why_not(result):  # the runs' own rows say why
        return []
    command = _command(worse, suite, of_suite, "--against", better.run_id)
    return [RunFailures(worse.run_id, suite, beside=better.run_id, **command)]


def _command(run: RunData, suite: str, of_suite: Sequence[StoredInspection], *more: str) -> dict[str, Any]:
    known: Mapping[str, Any] | None = suite_place(run, suite)
    how = known or next((one.about["suite"]["open"] for one in of_suite), {})
    options = [word for name in ("task", "mirror") if how.get(name) for word in (f"--{name}", str(how[name]))]
    words = ["gemma4vec", "inspect", run.run_id, "--suite", str(how.get("spec") or "DIR"), *options, *more]
    return {"command": shlex.join(words), "unplaced": not how.get("spec")}
