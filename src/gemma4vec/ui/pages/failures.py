"""`/inspect` and `/inspect/KEY`: slices, kinds of failure, and the queries behind them."""

from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from gemma4vec.errors import InputError
from gemma4vec.inspection.slices import PROPOSED
from gemma4vec.inspection.topics.map import MAP_POINTS
from gemma4vec.report.content.run_data import METRICS
from gemma4vec.report.inspect_page import slice_views
from gemma4vec.serving.search.display import to_one_line
from gemma4vec.ui.content.paging import Paging
from gemma4vec.ui.content.query_list import KEPT, ORDERS, OUTCOMES, Wanted, difference, select_queries
from gemma4vec.ui.content.stored_inspections import Columns, StoredInspection, language_of, named_about
from gemma4vec.ui.content.suite_texts import Texts
from gemma4vec.ui.window import Window

SHOWN = 100
LONGEST = 160  # characters of a query in a list


def inspection_list(window: Window, request: Request) -> Response:
    """All inspections."""
    return window.page(request, "inspections.html", {"title": "Failures", "found": window.inspections.all()})


def api_inspections(window: Window, request: Request) -> Response:
    """`/api/inspect`: the same as JSON."""
    return window.json(
        [
            {
                "key": one.key,
                "folder": str(one.folder),
                "damaged": one.damaged,
                "about": one.about,
                "slices": one.slices,
            }
            for one in window.inspections.all()
        ]
    )


def failures_page(window: Window, request: Request) -> Response:
    """One inspection. A damaged table of queries leaves slices and kinds.

    Raises:
        InputError: an unknown or damaged inspection, an unknown slice, a rule that cannot be read.
    """
    found = window.inspections.find(request.path_params["key"])
    wanted = Wanted.of(request.query_params)
    about = named_about(found.about, window.runs.name_of)
    views = slice_views(about, found.slices)
    names = [view for view in ("paired", "absolute") if any(one["view"] == view for one in found.every_slice)]
    view = wanted.view if wanted.view in names else (names[0] if names else "paired")
    values: dict[str, Any] = {
        "title": f"{about['model']['name']} on {about['suite']['name']}",
        "found": found,
        "about": about,
        "metric": METRICS.get(found.metric, found.metric),
        "views": [one for one in views if one[0] == view],
        "view": view,
        "names": names,
        "has_map": (found.folder / MAP_POINTS).is_file(),
        "saved": [one for one in found.saved if one["view"] == view],
        "slices": (shown := [one for one in found.every_slice if one["view"] == view]),
        "unopened": [one for one in shown if one["status"] == PROPOSED],
        "opened": [(one, found.opened[one["id"]]) for one in shown if one["id"] in found.opened],
        "wanted": wanted,
        "outcomes": OUTCOMES,
        "orders": ORDERS,
        "kinds": [one["name"] for one in found.about["kinds"]],
        "address": lambda **changes: _address(wanted, **changes),
        "rows": [],
        "paging": None,
        "problem": "",
        "no_texts": "",
    }
    try:
        columns = window.inspections.columns(found)
    except InputError as error:
        values["problem"] = str(error)
        return window.page(request, "failures.html", values)
    texts = window.suites.of_inspection(found.about)
    rows = selected_queries(window, found, columns, wanted, texts)
    values["paging"] = paging = Paging.of(request, len(rows), SHOWN)
    values["rows"] = [describe_query(found, columns, texts, row) for row in rows[paging.first : paging.last]]
    values["no_texts"] = texts.problem
    return window.page(request, "failures.html", values)


def api_failures(window: Window, request: Request) -> Response:
    """`/api/inspect/KEY`: the queries that fit, by pages of 100, as JSON."""
    found = window.inspections.find(request.path_params["key"])
    columns = window.inspections.columns(found)
    texts = window.suites.of_inspection(found.about)
    rows = selected_queries(window, found, columns, Wanted.of(request.query_params), texts)
    paging = Paging.of(request, len(rows), SHOWN)
    shown = [describe_query(found, columns, texts, row) for row in rows[paging.first : paging.last]]
    return window.json({"total": len(rows), "page": paging.page, "pages": paging.pages, "queries": shown})


def _address(wanted: Wanted, **changes: str) -> str:
    """The query part of an address with some filters changed."""
    kept = {**{name: getattr(wanted, name) for name in KEPT}, **changes}
    return urlencode({name: value for name, value in kept.items() if value})


def selected_queries(
    window: Window, found: StoredInspection, columns: Columns, wanted: Wanted, texts: Texts
) -> list[int]:
    """Rows that fit the filters, as `select_queries` finds them, kept for the next page of the list."""
    key = wanted, texts.suite is not None
    return window.inspections.selected(found, key, lambda: select_queries(found, columns, wanted, texts.queries))


def describe_query(found: StoredInspection, columns: Columns, texts: Texts, row: int) -> dict[str, Any]:
    """What a list shows of one query."""
    key = columns["query_id"][row]
    return {
        "row": row,
        "id": key,
        "query": texts.queries.get(key, ""),
        "shown": to_one_line(texts.queries.get(key, "") or key, LONGEST),
        "score": columns[found.metric][row],
        "difference": difference(columns, found.metric, row),
        "rank": columns["gold_rank"][row],
        "kinds": columns["kinds"][row] or [],
        "language": language_of(columns, row),
    }
