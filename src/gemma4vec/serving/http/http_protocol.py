"""What our servers share: the socket, uvicorn's settings, and its HTTP/1.1 protocol with two more time limits.

The limits are for the head of a request, and for a client that reads slowly. Without them a client that sends a header
every few seconds, or that never reads its reply, holds its connection and memory for ever.
"""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterator
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from gemma4vec.errors import InputError
from gemma4vec.serving.http.server_settings import HEAD_SECONDS, IDLE_SECONDS, READING_SECONDS

_BACKLOG = 2048
_CLOSING_SECONDS = 5  # for connections whose replies are sent


def bind(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        InputError: the port is in use or not allowed, or the host is no address of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, OverflowError, UnicodeError) as error:
        raise InputError(f"--host {host} --port {port}: {error}; use an address of this machine") from error
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise InputError(f"--port {port} is in use on {host}; choose another one") from error
        raise InputError(f"--host {host} --port {port}: {error.strerror}; use an address of this machine") from error
    return sock


def url_of(sock: socket.socket) -> str:
    """`http://host:port` of a socket."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class SignalFreeServer(uvicorn.Server):
    """uvicorn without its signal handlers, which would end the process by the signal instead of with code 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the caller."""
        yield


class TimedProtocol(H11Protocol):
    """One connection.

    Attributes:
        head_seconds: from a new connection, or from the first byte of its next request, to the end of the head.
        reading_seconds: from a reply to the moment when the client has read it.
    """

    head_seconds = HEAD_SECONDS
    reading_seconds = READING_SECONDS

    def __init__(self, *arguments: Any, **settings: Any):
        super().__init__(*arguments, **settings)
        self._head: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock of the first request's head."""
        super().connection_made(transport)
        self._head = self.loop.call_later(self.head_seconds, self._give_up)

    def data_received(self, data: bytes) -> None:
        """Stop the clock when the head is complete; start it with the first byte of the next one."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_head()
        elif self._head is None:
            self._head = self.loop.call_later(self.head_seconds, self._give_up)

    def on_response_complete(self) -> None:
        """Start the clock of a reply that is not read yet."""
        super().on_response_complete()
        if self._reading is None and self.transport.get_write_buffer_size():
            self._reading = self.loop.call_later(self.reading_seconds, self._check_reading)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks."""
        self._stop_head()
        if self._reading is not None:
            self._reading.cancel()
        super().connection_lost(exc)

    def _stop_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _check_reading(self) -> None:
        self._reading = None
        if self.transport.get_write_buffer_size():
            self._give_up()

    def _give_up(self) -> None:
        self._head = None
        self.transport.abort()


def uvicorn_config(app: object) -> uvicorn.Config:
    """The settings of every server of ours."""
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        http=TimedProtocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=_CLOSING_SECONDS,
    )
