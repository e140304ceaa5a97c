"""The pages and their addresses. A page is imported when it is first asked for, so that the window opens at once."""

from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any
from urllib.parse import parse_qs

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from gemma4vec.errors import Gemma4VecError, InputError
from gemma4vec.ui.gate import Gate
from gemma4vec.ui.static_files import static_file
from gemma4vec.ui.window import Window

MOST_FIELDS = 100

Page = Callable[[Window, Request], Response]

# address -> `module:function` below pages/. Ids of runs and inspections are looked up, and never become paths.
PAGES = {
    "/": "run_list:run_list_page",
    "/runs/{run_id}": "run_page:run_page",
    "/runs/{run_id}/live": "run_page:live_part",
    "/compare": "comparison:comparison_page",
    "/inspect": "failures:inspection_list",
    "/inspect/{key}": "failures:failures_page",
    "/inspect/{key}/geometry": "geometry:geometry_page",
    "/inspect/{key}/map": "inspection_map:inspection_map",
    "/inspect/{key}/queries/{row:int}": "query_page:query_page",
    "/search": "search_page:search_page",
    "/map": "map_page:map_page",
    "/walk": "walk_page:walk_page",
    "/inversion": "inversion_page:inversion_page",
    "/ledger": "ledger_page:ledger_page",
    "/api/runs": "run_list:api_runs",
    "/api/compare": "comparison:api_compare",
    "/api/inspect": "failures:api_inspections",
    "/api/inspect/{key}": "failures:api_failures",
    "/api/inspect/{key}/queries/{row:int}": "query_page:api_query",
    "/api/inspect/{key}/map/points": "inspection_map:api_points",
    "/api/inspect/{key}/map/texts": "inspection_map:api_texts",
    "/api/map/points": "map_page:api_points",
    "/api/map/texts": "map_page:api_texts",
    "/api/walk": "walk_page:api_walk",
    "/api/inversion": "inversion_page:api_inversion",
    "/api/ledger": "ledger_page:api_ledger",
}
# Answered by the event loop: they wait for long.
STREAMS = {"/api/runs/{run_id}/events": "event_stream:event_stream", "/api/search": "search_page:api_search"}
# What is recorded: `module:function`, which gets the form's fields too.
FORMS = {
    "/compare": "comparison:record_comparison",
    "/runs/{run_id}/decide": "recording:record_decision",
    "/inspect/{key}/queries/{row:int}/judge": "recording:record_judgment",
    "/inspect/{key}/slices": "recording:record_slice",
    "/inspect/{key}/confirm": "recording:record_confirmation",
}


def make_app(window: Window) -> Gate:
    """Build the ASGI application."""
    routes = [Route(path, _in_thread(window, target), methods=["GET"]) for path, target in PAGES.items()]
    routes += [Route(path, _in_loop(window, target), methods=["GET", "POST"]) for path, target in STREAMS.items()]
    routes += [Route(path, _with_form(window, target), methods=["POST"]) for path, target in FORMS.items()]
    routes += [Route("/static/{name}", lambda request: static_file(request), methods=["GET"])]
    handlers: dict[Any, Any] = {
        HTTPException: lambda request, error: _explain(window, request, "there is no such page", error.status_code),
        InputError: lambda request, error: _explain(window, request, str(error), 404 if _is_read(request) else 400),
        Gemma4VecError: lambda request, error: _explain(window, request, str(error), getattr(error, "status", 500)),
    }
    return Gate(ExceptionMiddleware(Router(routes, default=_missing), handlers=handlers), window)


async def _missing(scope: Scope, receive: Receive, send: Send) -> None:
    raise HTTPException(404)


def load_page(target: str) -> Any:
    """The function that `module:function` names."""
    module, function = target.split(":")
    return getattr(import_module(f"gemma4vec.ui.pages.{module}"), function)


def _in_thread(window: Window, target: str) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        return await run_in_threadpool(lambda: load_page(target)(window, request))

    return answer


def _in_loop(window: Window, target: str) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        function = await run_in_threadpool(load_page, target)
        reply: Response = await function(window, request)
        return reply

    return answer


def _with_form(window: Window, target: str) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        try:
            fields = parse_qs((await request.body()).decode("utf-8", "replace"), max_num_fields=MOST_FIELDS)
        except ValueError as error:
            raise InputError(f"the form has more than {MOST_FIELDS} fields") from error
        return await run_in_threadpool(lambda: load_page(target)(window, request, fields))

    return answer


def _is_read(request: Request) -> bool:
    return request.method in ("GET", "HEAD")


def _explain(window: Window, request: Request, line: str, status: int) -> Response:
    """What is wrong, as one line in the place of the page."""
    line = " ".join(line.split())
    if request.url.path.startswith("/api/"):
        return window.json({"error": line}, status)
    return window.page(request, "message.html", {"title": "Not shown", "line": line}, status)
