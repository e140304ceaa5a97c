"""`/search`: one query, several indexes with their models, and BM25 beside them."""

import asyncio
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gemma4vec.errors import InputError
from gemma4vec.reading.json_values import JsonError, loads_json
from gemma4vec.ui.content.search_worker import BM25, BusyError, find_sources, list_sources
from gemma4vec.ui.window import Window

HITS = 10


def search_page(window: Window, request: Request) -> Response:
    """The page; with `?q=`, the hits.

    Raises:
        InputError: an unknown index, an odd number of hits.
    """
    wanted = request.query_params
    sources = list_sources(window.runs.all())
    chosen = wanted.getlist("index") or [one.key for one in sources[:1]]
    values: dict[str, Any] = {
        "title": "Search",
        "sources": sources,
        "chosen": chosen,
        "query": wanted.get("q", ""),
        "bm25": wanted.get(BM25) == "1" or "q" not in wanted,
        "lists": [],
        "problem": "",
    }
    if not values["query"].strip() or not sources:
        return window.page(request, "search.html", values)
    try:
        # The oldest run is A, as where runs are compared; the list has the newest first.
        asked = sorted(find_sources(sources, chosen), key=sources.index, reverse=True)
        future = window.search.submit(values["query"], asked, HITS, bm25=values["bm25"])
    except BusyError as error:
        values["problem"] = str(error)
        return window.page(request, "search.html", values, 429)
    values["lists"] = future.result()
    return window.page(request, "search.html", values)


async def api_search(window: Window, request: Request) -> Response:
    """`POST /api/search`: {"query", "indexes": [key], "k", "bm25"}; `GET` lists the indexes."""
    if request.method != "POST":
        found = await asyncio.to_thread(lambda: list_sources(window.runs.all()))
        return window.json([{**asdict(one), "run": str(one.run), "folder": str(one.folder)} for one in found])
    try:
        asked = loads_json(await request.body())
        query, keys, k = asked["query"], asked["indexes"], asked.get("k", HITS)
        if not isinstance(query, str) or not isinstance(keys, list) or type(k) is not int:
            raise TypeError
    except (JsonError, TypeError, KeyError, AttributeError):
        raise InputError('send {"query": "words", "indexes": ["RUN/NAME"], "k": 10, "bm25": true}') from None
    sources = await asyncio.to_thread(lambda: list_sources(window.runs.all()))
    try:
        future = window.search.submit(
            query, find_sources(sources, [str(key) for key in keys]), k, bm25=asked.get(BM25) is True
        )
    except BusyError as error:
        reply = window.json({"error": str(error)}, 429)
        reply.headers["Retry-After"] = "2"
        return reply
    return window.json([asdict(one) for one in await asyncio.wrap_future(future)])
