"""A service in this process, asked without a socket."""

import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2

from gemma4vec.serving.http.endpoints import make_app
from gemma4vec.serving.http.server_settings import ServerSettings
from gemma4vec.serving.http.service import Service


@contextlib.contextmanager
def running(model: Any, index: Any = None, **settings: Any) -> Iterator[Service]:
    """A started service with its model thread."""
    service = Service(ServerSettings(**{"model": "stub", "default_input_type": "query", "compile": False, **settings}))
    service.start(model, index)
    thread = threading.Thread(target=service.batcher.run, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        service.close()
        thread.join(60)
        assert not thread.is_alive()


@contextlib.asynccontextmanager
async def asking(service: Service, **headers: str) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the service's application."""
    transport = httpx2.ASGITransport(app=make_app(service))
    async with httpx2.AsyncClient(
        transport=transport, base_url="http://localhost", headers=headers, timeout=60
    ) as client:
        yield client
