"""The outermost layer of every request: who may ask, what a body may weigh, and what a browser may do with a reply.

The window shows texts and scores of this machine, and any web page that is open in the same browser can send requests
to it. So the name in `Host` must be this machine's (DNS rebinding), `Origin` must be the window itself (forged
requests), and a cookie is asked for that only the first URL's secret buys.
"""

import hmac
import logging
import traceback
from pathlib import Path
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gemma4vec.serving.http.api_errors import ApiError, ClientLeftError
from gemma4vec.serving.http.guard import read_body
from gemma4vec.ui.window import Window

logger = logging.getLogger(__name__)

MOST_BODY_BYTES = 2**20
OPEN = "/open"
_SAFE = ("GET", "HEAD")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "worker-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # no-referrer would make a form's Origin "null"
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_LOCKED = "This window is locked. Open the address that `gemma4vec ui` has printed."


class _RefusedError(Exception):
    """A request that is answered with one line."""

    def __init__(self, status: int, line: str):
        super().__init__(line)
        self.status, self.line = status, line


class Gate:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, window: Window):
        self.app, self.window = app, window
        names = ("127.0.0.1", "localhost")
        self._hosts = {f"{name}:{window.port}" for name in names} | ({*names} if window.port == 80 else set())
        self._origins = {f"http://{host}" for host in self._hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        begun = False

        async def send_guarded(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            headers = Headers(scope=scope)
            self._check(scope, headers)
            if scope["path"] == OPEN and scope["method"] in _SAFE:
                await self._let_in(scope)(scope, receive, send_guarded)
                return
            if scope["method"] not in _SAFE:
                receive = _replayed(await read_body(receive, headers, most=MOST_BODY_BYTES))
            await self.app(scope, receive, send_guarded)
        except ClientLeftError:
            return
        except (_RefusedError, ApiError) as error:
            line = error.line if isinstance(error, _RefusedError) else error.message
            await _one_line(line, error.status)(scope, receive, send_guarded)
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            logger.error(f"unexpected {type(error).__name__} at {Path(where.filename).name}:{where.lineno}")
            if begun:
                raise ConnectionAbortedError from None  # half a reply: the connection is closed
            line = f"The window made a mistake (unexpected {type(error).__name__}); its log says where."
            await _one_line(line, 500)(scope, receive, send_guarded)

    def _check(self, scope: Scope, headers: Headers) -> None:
        """Refuse what does not come from a page of this window, or from its owner."""
        if headers.get("host", "").lower() not in self._hosts:
            raise _RefusedError(403, "This window answers to 127.0.0.1 and localhost alone.")
        origin = headers.get("origin")
        forged = origin is not None and origin.lower() not in self._origins
        if forged or (scope["method"] not in _SAFE and origin is None):
            raise _RefusedError(403, "Another page sent this request, so it is refused.")
        if scope["path"] != OPEN and not self._has_session(headers):
            raise _RefusedError(403, _LOCKED)
        if scope["method"] not in _SAFE and self.window.read_only and scope["path"] != "/api/search":
            raise _RefusedError(403, "This window is read-only: nothing is recorded from it.")

    def _has_session(self, headers: Headers) -> bool:
        given = cookie_parser(headers.get("cookie", "")).get(self.window.cookie, "")
        return hmac.compare_digest(given.encode("utf-8", "replace"), self.window.session.encode())

    def _let_in(self, scope: Scope) -> Response:
        """Swap the first URL's token for the cookie.

        A page that moves on by itself, and no redirect: the browser sends no SameSite=Strict cookie with a redirect
        that began outside, such as at a file or a terminal's link.
        """
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if not hmac.compare_digest(given.encode("utf-8", "replace"), self.window.token.encode()):
            raise _RefusedError(403, _LOCKED)
        page = (
            '<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="0; url=/">'
            '<link rel="icon" href="data:,"><title>gemma4vec</title><p><a href="/">Runs</a></p></html>'
        )
        reply = HTMLResponse(page)
        reply.set_cookie(self.window.cookie, self.window.session, httponly=True, samesite="strict", path="/")
        return reply


def _one_line(line: str, status: int) -> Response:
    """A page that needs no other file."""
    text = line.replace("&", "&amp;").replace("<", "&lt;")
    head = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><link rel="icon" href="data:,"><title>gemma4vec</title>'
    )
    page = f"{head}<p>{text}</p></html>"
    return HTMLResponse(page, status)


def _replayed(body: bytes) -> Receive:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive
