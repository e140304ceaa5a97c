"""`/inspect/KEY/map`: documents and queries as points; what lies in a lasso as a list, and the rules that say it."""

from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from gemma4vec.errors import InputError
from gemma4vec.inspection.geometry.plane import inside_polygon
from gemma4vec.inspection.saved.selection_rules import rules_of_selection
from gemma4vec.inspection.topics.map import MAP_POINTS
from gemma4vec.report.content.run_data import METRICS
from gemma4vec.serving.search.display import to_one_line
from gemma4vec.ui.content.inspected_points import InspectedMap, color_points, colors_of, queries_among
from gemma4vec.ui.content.map_points import pack_points, parse_lasso
from gemma4vec.ui.content.paging import Paging
from gemma4vec.ui.content.query_list import Wanted
from gemma4vec.ui.content.stored_inspections import StoredInspection
from gemma4vec.ui.pages.failures import describe_query, selected_queries
from gemma4vec.ui.pages.map_page import EXCERPT, MOST_ROWS, parse_rows
from gemma4vec.ui.window import Window

SHOWN = 50


def inspection_map(window: Window, request: Request) -> Response:
    """The page; with `?with=KEY` a second map of the same suite beside it, linked.

    Raises:
        InputError: an unknown or damaged inspection, color or group, a lasso that is no polygon.
    """
    wanted = request.query_params
    found = window.inspections.find(request.path_params["key"])
    others = [
        one
        for one in window.inspections.all()
        if one.key != found.key
        and not one.damaged
        and one.about["suite"]["fingerprint"] == found.about["suite"]["fingerprint"]
        and (one.folder / MAP_POINTS).is_file()
    ]
    values: dict[str, Any] = {
        "title": f"Map of {window.runs.name_of(found.about['model']['name'])} on {found.about['suite']['name']}",
        "found": found,
        "others": others,
        "beside": wanted.get("with", ""),
        "maps": [],
        "colors": {},
        "rules": [],
        "lasso": wanted.get("lasso", ""),
    }
    shown = window.inspected_maps.open(found)
    if shown is None:
        return window.page(request, "inspection_map.html", values)
    rule = _rule(found, wanted)
    values["colors"] = colors_of(found, rule)
    color = wanted.get("color") or ("rule" if rule else "kind")
    values["maps"] = [_legend(window, found, color, rule)]
    for one in others:
        if one.key == values["beside"]:
            values["maps"].append(_legend(window, window.inspections.find(one.key), color, rule))
    if values["beside"] and len(values["maps"]) == 1:
        raise InputError("no other map of this suite has this key")
    columns, texts = window.inspections.columns(found), window.suites.of_inspection(found.about)
    names, group_n = _colored(window, found, shown, color, rule)
    group = wanted.get("group", "")
    if group and group not in names:
        raise InputError(f"this map has no group '{group[:60]}'")
    corners = parse_lasso(values["lasso"])
    lassoed = 2 if wanted.get("of") == "2" and len(values["maps"]) == 2 else 1
    chosen_n = np.ones(len(group_n), dtype=bool)
    if corners:
        drawn = values["maps"][lassoed - 1]["shown"]
        chosen_n = np.isin(shown.number, drawn.number[inside_polygon(drawn.places, corners)])
    if group:
        chosen_n &= group_n == names.index(group)
    open_rows = set(_open_rows(window, found))
    among = queries_among(shown, chosen_n)
    rows = [row for row in among if row in open_rows]
    paging = Paging.of(request, len(rows), SHOWN)
    if corners:
        values["rules"] = rules_of_selection(columns, sorted(open_rows), rows)
    return window.page(
        request,
        "inspection_map.html",
        {
            **values,
            "color": color,
            "rule": rule,
            "group": group,
            "lassoed": lassoed,
            "counts": [int(chosen_n.sum()) - len(among), len(rows), len(among) - len(rows)],
            "metric": METRICS.get(found.metric, found.metric),
            "view": "paired" if found.about["against"] is not None else "absolute",
            "paging": paging,
            "rows": [describe_query(found, columns, texts, row) for row in rows[paging.first : paging.last]],
            "address": lambda **changes: _address(request, **changes),
        },
    )


def api_points(window: Window, request: Request) -> Response:
    """`/api/inspect/KEY/map/points?color=kind`: the points, as `map_points` describes.

    Raises:
        InputError: as the page; an inspection without a map.
    """
    found = window.inspections.find(request.path_params["key"])
    shown = _open(window, found)
    rule = _rule(found, request.query_params)
    color = request.query_params.get("color") or ("rule" if rule else "kind")
    names, group_n = _colored(window, found, shown, color, rule)
    data = pack_points(names, shown.places, shown.number, group_n)
    return Response(data, media_type="application/octet-stream")


def api_texts(window: Window, request: Request) -> Response:
    """`/api/inspect/KEY/map/texts?rows=1,2`: id and beginning of some points; sealed queries are not shown.

    Raises:
        InputError: an unknown inspection, or numbers that its map does not have.
    """
    found = window.inspections.find(request.path_params["key"])
    columns, texts = window.inspections.columns(found), window.suites.of_inspection(found.about)
    queries, documents = len(columns["query_id"]), int(found.about["documents"])
    rows = parse_rows(request.query_params.get("rows", ""), queries + documents)[:MOST_ROWS]
    made, open_rows = [], set(_open_rows(window, found))
    for row in rows:
        if row >= queries:
            key = texts.suite.corpus_ids[row - queries] if texts.suite is not None else f"document {row - queries}"
            document = texts.document(key)
            words = "" if document is None else f"{document.title or ''} {document.text}"
        elif row not in open_rows:
            key, words = "a sealed query", ""
        else:
            key = columns["query_id"][row]
            words = texts.queries.get(key, "")
        made.append({"row": row, "id": key, "text": to_one_line(words, EXCERPT)})
    return window.json(made)


def _legend(window: Window, found: StoredInspection, color: str, rule: str) -> dict[str, Any]:
    """What a figure and its legend need."""
    shown = _open(window, found)
    names, group_n = _colored(window, found, shown, color, rule)
    counts = np.bincount(group_n, minlength=len(names)).tolist()
    return {"found": found, "shown": shown, "groups": list(zip(names, counts, strict=True)), "count": len(group_n)}


def _open_rows(window: Window, found: StoredInspection) -> list[int]:
    """Queries that may be shown."""
    texts = window.suites.of_inspection(found.about)
    return selected_queries(window, found, window.inspections.columns(found), Wanted(), texts)


def _colored(
    window: Window, found: StoredInspection, shown: InspectedMap, color: str, rule: str
) -> tuple[list[str], np.ndarray]:
    columns = window.inspections.columns(found)
    return color_points(found, shown, columns, color, rule, _open_rows(window, found))


def _open(window: Window, found: StoredInspection) -> InspectedMap:
    shown = window.inspected_maps.open(found)
    if shown is None:
        raise InputError("this inspection has no map; make one with gemma4vec inspect --map")
    return shown


def _rule(found: StoredInspection, wanted: Any) -> str:
    """The rule of an address, or that of a slice."""
    known = {one["id"]: str(one["rule"]) for one in found.every_slice}
    return str(wanted.get("rule") or known.get(wanted.get("slice", ""), ""))


def _address(request: Request, **changes: str) -> str:
    """The query part of this address with some parts changed; empty ones are left out."""
    url = request.url.include_query_params(**changes).remove_query_params(
        ["page", "export", *(name for name, value in changes.items() if not value)]
    )
    return str(url.query)
