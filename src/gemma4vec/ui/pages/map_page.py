"""`/map?index=RUN/NAME`: the documents of an index as points, and the same as a list by groups."""

from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from gemma4vec.errors import InputError
from gemma4vec.serving.search.display import to_one_line
from gemma4vec.serving.search.index import SearchIndex
from gemma4vec.ui.content.map_points import MapPoints
from gemma4vec.ui.content.paging import Paging
from gemma4vec.ui.content.search_worker import Source, find_sources, list_sources
from gemma4vec.ui.window import Window

SHOWN = 50
MOST_ROWS = 50  # of one request for texts
EXCERPT = 200  # characters


def map_page(window: Window, request: Request) -> Response:
    """The page.

    Raises:
        InputError: an unknown index or group, or a damaged index.
    """
    sources = list_sources(window.runs.all())
    values: dict[str, Any] = {"title": "Map", "sources": sources, "key": "", "points": None}
    if not sources:
        return window.page(request, "map.html", values)
    source = find_sources(sources, [request.query_params.get("index") or sources[0].key])[0]
    points, index = window.maps.open(source)
    names = [name for name, _ in points.groups]
    group = request.query_params.get("group", "")
    if group and group not in names:
        raise InputError(f"this map has no group '{group[:60]}'")
    rows = points.rows_of[names.index(group)] if group else np.arange(points.count)
    paging = Paging.of(request, len(rows), SHOWN)
    values |= {
        "title": f"Map of {source.model}, {source.name}",
        "key": source.key,
        "points": points,
        "group": group,
        "paging": paging,
        "rows": [_describe(index, int(row)) for row in rows[paging.first : paging.last]],
    }
    return window.page(request, "map.html", values)


def api_points(window: Window, request: Request) -> Response:
    """`/api/map/points?index=RUN/NAME`: the points, as `map_points` describes.

    Raises:
        InputError: an unknown or damaged index.
    """
    return Response(_open(window, request)[0].data, media_type="application/octet-stream")


def api_texts(window: Window, request: Request) -> Response:
    """`/api/map/texts?index=RUN/NAME&rows=1,2`: id and beginning of some documents.

    Raises:
        InputError: an unknown index, or rows that it does not have.
    """
    _, index = _open(window, request)
    parts = request.query_params.get("rows", "").split(",")[:MOST_ROWS]
    if not all(part.isascii() and part.isdigit() and len(part) < 10 and int(part) < index.count for part in parts):
        raise InputError("give rows of the index, such as rows=1,2")
    return window.json([_describe(index, int(part)) for part in parts])


def _open(window: Window, request: Request) -> tuple[MapPoints, SearchIndex]:
    sources: list[Source] = list_sources(window.runs.all())
    return window.maps.open(find_sources(sources, [request.query_params.get("index", "")])[0])


def _describe(index: SearchIndex, row: int) -> dict[str, Any]:
    document = index.documents[row]
    words = f"{document.title} {document.text}" if document.title else document.text
    return {"row": row, "id": document.id, "text": to_one_line(words, EXCERPT)}
