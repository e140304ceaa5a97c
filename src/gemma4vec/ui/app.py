"""The pages and their addresses. A page is imported when it is first asked for, so that the window opens at once."""

from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any

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

Page = Callable[[Window, Request], Response]

# address -> `module:function` below pages/. Ids of runs and inspections are looked up, and never become paths.
PAGES = {
    "/": "run_list:run_list_page",
    "/runs/{run_id}": "run_page:run_page",
    "/runs/{run_id}/live": "run_page:live_part",
    "/ledger": "ledger_page:ledger_page",
    "/api/runs": "run_list:api_runs",
    "/api/ledger": "ledger_page:api_ledger",
}
STREAMS = {"/api/runs/{run_id}/events": "event_stream:event_stream"}
FORMS: dict[str, str] = {}


def make_app(window: Window) -> Gate:
    """Build the ASGI application."""
    routes = [Route(path, _in_thread(window, target), methods=["GET"]) for path, target in PAGES.items()]
    routes += [Route(path, _in_loop(window, target), methods=["GET"]) for path, target in STREAMS.items()]
    routes += [Route(path, _with_form(window, target), methods=["POST"]) for path, target in FORMS.items()]
    routes += [Route("/static/{name}", lambda request: static_file(request), methods=["GET"])]
    handlers: dict[Any, Any] = {
        HTTPException: lambda request, error: _explain(window, request, "there is no such page", error.status_code),
        InputError: lambda request, error: _explain(window, request, str(error), 404),
        Gemma4VecError: lambda request, error: _explain(window, request, str(error), 500),
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
        body = await request.body()
        return await run_in_threadpool(lambda: load_page(target)(window, request, body))

    return answer


def _explain(window: Window, request: Request, line: str, status: int) -> Response:
    """What is wrong, as one line in the place of the page."""
    line = " ".join(line.split())
    if request.url.path.startswith("/api/"):
        return window.json({"error": line}, status)
    return window.page(request, "message.html", {"title": "Not shown", "line": line}, status)
