"""`/map?index=RUN/NAME`: the documents of an index as points, and the same as a list by groups."""

from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from gemma4vec.errors import InputError
from gemma4vec.inspection.geometry.plane import inside_polygon
from gemma4vec.serving.search.display import to_one_line
from gemma4vec.serving.search.index import SearchIndex
from gemma4vec.serving.search.storage import IndexMeta
from gemma4vec.ui.content.map_points import MapPoints, parse_lasso
from gemma4vec.ui.content.paging import Paging
from gemma4vec.ui.content.search_worker import Source, find_sources, list_sources
from gemma4vec.ui.window import Window

SHOWN = 50
MOST_ROWS = 50  # of one request for texts
EXCERPT = 200  # characters


def map_page(window: Window, request: Request) -> Response:
    """The page.

    Raises:
        InputError: an unknown index or group, a damaged index, or a lasso that is no polygon.
    """
    sources = list_sources(window.runs.all())
    values: dict[str, Any] = {"title": "Map", "sources": sources, "key": "", "points": None}
    if not sources:
        return window.page(request, "map.html", values)
    wanted = request.query_params
    source = find_sources(sources, [wanted.get("index") or sources[0].key])[0]
    points, index = window.maps.open(source)
    maps: list[dict[str, Any]] = [{"source": source, "points": points}]
    listed, listed_index = points, index  # of the second map, if the lasso is there
    if beside := wanted.get("with", ""):
        other = find_sources(sources, [beside])[0]
        second, second_index = window.maps.open(other)
        maps.append({"source": other, "points": second})
        if wanted.get("of") == "2":
            listed, listed_index = second, second_index
    names = [name for name, _ in listed.groups]
    group = wanted.get("group", "")
    if group and group not in names:
        raise InputError(f"this map has no group '{group[:60]}'")
    rows = listed.rows_of[names.index(group)] if group else np.arange(listed.count)
    corners = parse_lasso(wanted.get("lasso", ""))
    if corners:
        rows = rows[inside_polygon(listed.places[rows], corners)]
    paging = Paging.of(request, len(rows), SHOWN)
    values |= {
        "title": f"Map of {source.label}",
        "key": source.key,
        "beside": beside,
        "maps": maps,
        "linked": len(maps) == 2 and _same_documents(maps[0]["source"], maps[1]["source"]),
        "points": points,
        "group": group,
        "lasso": wanted.get("lasso", "") if corners else "",
        "lassoed": 2 if listed is not points else 1,
        "paging": paging,
        "rows": [_describe(listed_index, int(row)) for row in rows[paging.first : paging.last]],
    }
    return window.page(request, "map.html", values)


def _same_documents(one: Source, other: Source) -> bool:
    """Whether two indexes hold the same documents in the same order, so that a row is one document in both."""
    return IndexMeta.read(one.folder).corpus == IndexMeta.read(other.folder).corpus


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
    return window.json([_describe(index, row) for row in parse_rows(request.query_params.get("rows", ""), index.count)])


def parse_rows(given: str, count: int) -> list[int]:
    """Numbers of points in an address, at most `MOST_ROWS` of them.

    Raises:
        InputError: other things than numbers below `count`.
    """
    parts = given.split(",")[:MOST_ROWS]
    if not all(part.isascii() and part.isdigit() and len(part) < 10 and int(part) < count for part in parts):
        raise InputError("give rows of the map, such as rows=1,2")
    return [int(part) for part in parts]


def _open(window: Window, request: Request) -> tuple[MapPoints, SearchIndex]:
    sources: list[Source] = list_sources(window.runs.all())
    return window.maps.open(find_sources(sources, [request.query_params.get("index", "")])[0])


def _describe(index: SearchIndex, row: int) -> dict[str, Any]:
    document = index.documents[row]
    words = f"{document.title} {document.text}" if document.title else document.text
    return {"row": row, "id": document.id, "text": to_one_line(words, EXCERPT)}
