"""`/compare?run=A&run=B`: what `gemma4vec report A B` says. A new pair is compared by a form alone, and recorded."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from gemma4vec.errors import InputError, WorkError
from gemma4vec.evaluation.comparison.comparison_count import NotComparedError
from gemma4vec.ledger.ledger import open_ledger
from gemma4vec.ledger.overview import diff_runs
from gemma4vec.report.comparison_page import comparison_values
from gemma4vec.report.content.comparison_data import RunComparison, SuiteSection, read_comparison
from gemma4vec.report.content.comparison_headline import format_comparison_headline, order_sentences
from gemma4vec.statistics.multiplicity import Correction
from gemma4vec.ui.content.failure_links import find_failures
from gemma4vec.ui.content.flipped import Flips, find_flips
from gemma4vec.ui.window import Window

MOST_RUNS = 12
_CORRECTION: Correction = "holm"


def comparison_page(window: Window, request: Request) -> Response:
    """The page; without two runs, how to choose them.

    Raises:
        InputError: an unknown run, a folder that is gone, too many runs.
    """
    ids = _chosen(window, request.query_params.getlist("run"), request.query_params.get("order"))
    values: dict[str, Any] = {"title": "Compare", "ids": ids, "uncompared": "", "report": None}
    values |= {
        "flips": [],
        "failures": [],
        "differ": None,
        "choices": [],
        "letters": {},
        "swatches": {},
        "letter_of": {},
    }
    if len(set(ids)) < 2:
        values["choices"] = [(run["run_id"], run["name"], str(run["created"])[:10]) for run in window.runs.all()[:200]]
        return window.page(request, "compare.html", values)
    values["title"] = " against ".join(window.runs.name_of(str(window.runs.find(one)["run_id"])) for one in ids[:3])
    try:
        found = _read(window, ids, only_known=True)
    except NotComparedError as error:
        values["uncompared"] = window.runs.with_names(str(error), ids)
        values["differ"] = _difference(window, ids)
        return window.page(request, "compare.html", values)
    found.missing = [window.runs.with_names(one, ids) for one in found.missing]
    values["report"] = report = comparison_values(found, _CORRECTION, examples=False)
    values |= {"letters": report["letters"], "swatches": report["swatches"]}
    values["letter_of"] = {run.run_id: report["letters"][one.label] for one in found.groups for run in one.runs}
    stored = window.inspections.all()
    values["failures"] = find_failures(found, stored)
    flips = [find_flips(found, section, window.suites, stored) for section in found.suites]
    values["flips"] = [one for one in flips if one is not None]
    return window.page(request, "compare.html", values)


def record_comparison(window: Window, request: Request, fields: Mapping[str, Sequence[str]]) -> Response:
    """Compare, which the ledger records, and show it.

    Raises:
        InputError: fewer than two runs, an unknown one, a folder that is gone.
        WorkError: the ledger did not record it.
    """
    ids = _chosen(window, fields.get("run", []), fields.get("order", [""])[0])
    if len(ids) < 2:
        raise InputError("choose two runs or more, the control first; then compare")
    _read(window, ids, only_known=False)
    try:
        _read(window, ids, only_known=True)
    except NotComparedError as error:  # who looks at the page would find it as before, without a reason
        raise WorkError(
            f"the ledger did not record the comparison, so it is not shown; check that {window.home} can be written "
            "and that its disk is not full, then compare again"
        ) from error
    return RedirectResponse(f"/compare?{urlencode([('run', one) for one in ids])}", 303)


def api_compare(window: Window, request: Request) -> Response:
    """`/api/compare?run=A&run=B`: recorded comparisons as JSON.

    Raises:
        InputError: as the page; also where the ledger does not have the comparison yet.
    """
    ids = request.query_params.getlist("run")
    if len(set(ids)) < 2:
        raise InputError("give two runs: /api/compare?run=A&run=B")
    found = _read(window, ids, only_known=True)
    stored = window.inspections.all()
    suites = [_plain(found, section, find_flips(found, section, window.suites, stored)) for section in found.suites]
    names = {group.label: group.label for group in found.groups}
    said = {"headline": format_comparison_headline(found, names), "orders": order_sentences(found, names)}
    return window.json({"runs": ids, **said, "suites": suites, "differing": found.differing, "missing": found.missing})


def _plain(found: RunComparison, section: SuiteSection, flips: Flips | None) -> dict[str, Any]:
    """A suite as JSON values; `flipped` has its single queries, with what was found."""
    hidden = ("largest_wins", "largest_losses", "withheld")
    return {
        "suite": section.name,
        "metric": section.metric,
        "family": vars(section.family) if section.family else None,
        "comparisons": [
            {"a": a, "b": b, **{name: value for name, value in one.as_dict().items() if name not in hidden}}
            for a, b, one in section.comparisons
        ],
        "flipped": asdict(flips) if flips else None,
    }


def _chosen(window: Window, ids: Sequence[str], order: str | None) -> list[str]:
    """The chosen runs, each once: the control first, or with `order=oldest` the one that was made first."""
    unique = list(dict.fromkeys(ids))
    return sorted(unique, key=lambda one: str(window.runs.find(one)["created"])) if order == "oldest" else unique


def _read(window: Window, ids: Sequence[str], *, only_known: bool) -> RunComparison:
    if len(ids) > MOST_RUNS:
        raise InputError(f"{len(ids)} runs at once are too many; compare at most {MOST_RUNS}")
    folders = [window.runs.folder(one).path for one in dict.fromkeys(ids)]
    return read_comparison(folders, _CORRECTION, only_known=only_known)


def _difference(window: Window, ids: Sequence[str]) -> dict[str, Any]:
    """What `gemma4vec runs diff` says of the first two; it compares no scores."""
    with open_ledger(window.home) as ledger:
        return diff_runs(ledger, window.runs.find(ids[0]), window.runs.find(ids[1]))
