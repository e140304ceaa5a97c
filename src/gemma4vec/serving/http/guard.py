"""The outermost layer of every request: who may ask, how long a body may take, and errors as JSON.

No text of a request reaches the log or an error: of an exception that nobody expected, its type and place are logged.
"""

import asyncio
import hmac
import ipaddress
import json
import logging
import time
import traceback
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gemma4vec.errors import InputError
from gemma4vec.serving.http.api_errors import ApiError, ClientLeftError
from gemma4vec.serving.http.server_metrics import Metrics
from gemma4vec.serving.http.server_settings import BODY_SECONDS, MOST_BODY_BYTES

logger = logging.getLogger(__name__)

_PUBLIC = ("/health/live", "/health/ready")
_HEALTH_AND_METRICS = (*_PUBLIC, "/metrics")
_LEFT = 499  # as nginx counts clients that closed the connection


def read_tokens(file: Path) -> tuple[str, ...]:
    """The bearer tokens of a file, one a line.

    Raises:
        InputError: the file is missing, cannot be read, is empty, or a line is no token.
    """
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise InputError(f"--token-file {file} cannot be read ({reason}); write a token into it") from error
    tokens = tuple(line for line in lines if line)
    if not tokens:
        raise InputError(f"--token-file {file} is empty; write a token into it, such as of `openssl rand -hex 32`")
    for number, line in enumerate(lines, 1):
        if not line.isascii() or not line.isprintable() or " " in line:
            raise InputError(f"--token-file {file} line {number} is no token: use printable ASCII without spaces")
    return tokens


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


async def read_body(
    receive: Receive, headers: Headers, seconds: float = BODY_SECONDS, most: int = MOST_BODY_BYTES
) -> bytes:
    """The whole body.

    Raises:
        ApiError: 413 over `most` bytes, 408 if it takes too long.
        ClientLeftError: the client closed the connection.
    """
    length = headers.get("content-length", "0")
    too_large = ApiError(413, f"the body is larger than {most // 2**20} MiB", code="body_too_large")
    if not length.isdigit() or int(length[:20]) > most:
        raise too_large
    parts, size = [], 0
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientLeftError
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > most:
                    raise too_large
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        raise ApiError(408, "the body did not arrive in time", code="body_timeout") from None


class Guard:
    """ASGI middleware.

    Args:
        app: the application.
        metrics: counts requests.
        tokens: accepted bearer tokens; empty: none is asked for, and only names of this machine are accepted as `Host`,
            so that no web page can reach the server through a name of its own (DNS rebinding).
        paths: the paths by which requests are counted; all others count as one.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, tokens: tuple[str, ...], paths: frozenset[str]):
        self.app, self.metrics, self.paths = app, metrics, paths
        self._tokens = [token.encode() for token in tokens]
        self.in_flight = 0
        self.idle = asyncio.Event()
        self.idle.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        path = str(scope["path"])
        counted = path not in _HEALTH_AND_METRICS
        started, status = time.perf_counter(), 0

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._enter(counted)
        try:
            try:
                self._check(path, Headers(scope=scope))
                await self.app(scope, receive, send_and_note)
            except ClientLeftError:
                status = _LEFT
            except ApiError as error:
                await _send_error(error, scope, receive, send_and_note)
            except Exception as error:
                logger.error(f"unexpected {type(error).__name__} at {_place(error)}")
                if status:
                    raise ConnectionAbortedError from None  # a reply was begun: the connection is closed
                unexpected = ApiError(500, "the server made a mistake; its log says where", kind="server_error")
                await _send_error(unexpected, scope, receive, send_and_note)
        finally:
            self._leave(counted)
            endpoint = path if path in self.paths else "other"
            self.metrics.count("gemma4vec_requests_total", endpoint=endpoint, status=str(status or _LEFT))
            if counted:
                self.metrics.observe("gemma4vec_request_seconds", time.perf_counter() - started, endpoint=endpoint)

    def _enter(self, counted: bool) -> None:
        self.in_flight += counted
        if self.in_flight:
            self.idle.clear()

    def _leave(self, counted: bool) -> None:
        self.in_flight -= counted
        if not self.in_flight:
            self.idle.set()

    def _check(self, path: str, headers: Headers) -> None:
        if path in _PUBLIC:
            return
        if not self._tokens:
            if not is_loopback(_host_name(headers.get("host", ""))):
                raise ApiError(403, "this server answers requests to localhost alone", code="unknown_host")
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        # Every token is compared, so that the time says nothing.
        found = [hmac.compare_digest(given.strip().encode("utf-8", "replace"), token) for token in self._tokens]
        if scheme.lower() != "bearer" or not any(found):
            raise ApiError(401, "a valid bearer token is needed: Authorization: Bearer TOKEN", code="invalid_api_key")


def _host_name(header: str) -> str:
    """The name in a `Host` header, without its port."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]


async def _send_error(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    headers = error.headers()
    if error.status in (401, 403, 408, 413):
        headers["Connection"] = "close"  # the rest of the body is not read
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    response = Response(json.dumps(error.body()), error.status, headers, "application/json")
    await response(scope, receive, send)


def _place(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "an unknown place"
