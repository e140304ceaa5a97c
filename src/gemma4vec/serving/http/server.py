"""One server process: its socket, its threads, its signals, and its end.

SIGTERM: `/health/ready` and new requests are answered with 503, accepted requests are finished, the process ends.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from gemma4vec.errors import WorkError
from gemma4vec.serving.http.endpoints import make_app
from gemma4vec.serving.http.http_protocol import SignalFreeServer, url_of, uvicorn_config
from gemma4vec.serving.http.searcher import OpenIndex, open_searcher
from gemma4vec.serving.http.server_settings import DRAIN_SECONDS, ServerSettings
from gemma4vec.serving.http.service import Model, Service

logger = logging.getLogger(__name__)

OpenModel = Callable[[ServerSettings], Model]
_MODEL_THREAD = "gemma4vec-model"


def open_model(settings: ServerSettings) -> Model:
    """The model that the settings name."""
    from gemma4vec.serving.http.served_model import open_served_model

    return open_served_model(settings)


class ServerProcess:
    """Runs until SIGTERM, SIGINT or `stop`.

    Args:
        settings: what was asked for.
        sock: a listening socket.
        opening: opens the model, in the model thread.
        worker: number among several processes, with the folder of their metrics; None: it is alone.
        on_ready: called once requests are accepted.
        drain_seconds: how long accepted requests may take after SIGTERM.
    """

    def __init__(
        self,
        settings: ServerSettings,
        sock: socket.socket,
        *,
        opening: OpenModel = open_model,
        worker: tuple[int, Path] | None = None,
        on_ready: Callable[[], None] = lambda: None,
        drain_seconds: float = DRAIN_SECONDS,
    ):
        self.service = Service(settings, worker)
        self.app = make_app(self.service)
        self.on_ready = on_ready
        self._sock, self._opening, self._drain_seconds = sock, opening, drain_seconds
        self._is_worker = worker is not None
        self._stopped = asyncio.Event()
        self._died = asyncio.Event()

    def stop(self) -> None:
        """Begin to shut down; from the event loop."""
        if self._stopped.is_set():
            logger.warning("asked to stop a second time; ending at once")
            self._died.set()
        self._stopped.set()

    async def run(self) -> None:
        """Serve until the end.

        Raises:
            InputError, WorkError: the model or the index cannot be opened.
            WorkError: the model thread has died, or accepted requests were not finished in time.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            if threading.current_thread() is threading.main_thread():
                loop.add_signal_handler(number, self.stop)
        server = SignalFreeServer(uvicorn_config(self.app))
        # A worker answers when it is ready, so that the others get the requests until then.
        serving = None if self._is_worker else loop.create_task(server.serve([self._sock]))
        started: asyncio.Future[None] = loop.create_future()
        thread = threading.Thread(target=self._run_model, args=(loop, started), name=_MODEL_THREAD, daemon=True)
        thread.start()
        stopped = loop.create_task(self._stopped.wait())
        died = loop.create_task(self._died.wait())
        try:
            await asyncio.wait((started, stopped), return_when=asyncio.FIRST_COMPLETED)
            if started.done():
                started.result()
                serving = serving or loop.create_task(server.serve([self._sock]))
                while not server.started and not serving.done():
                    await asyncio.sleep(0.001)
                self.on_ready()
                await self._until_stopped(stopped, died)
                await self._drain(died)
        finally:
            self.service.draining = True
            server.should_exit = True
            if serving is not None:
                await serving
            self.service.close()
            for task in (stopped, died):
                task.cancel()
        if started.done() and self._died.is_set() and not self._stopped.is_set():
            raise WorkError("the model thread has ended unexpectedly; start the server again")

    def _run_model(self, loop: asyncio.AbstractEventLoop, started: "asyncio.Future[None]") -> None:
        """The model thread: open, warm up, compute."""
        try:
            model = self._opening(self.service.settings)
            self.service.start(model, _open_index(self.service.settings, model))
        except BaseException as error:  # whatever it is, the main thread reports it
            _call(loop, started.set_exception, error)
            return
        _call(loop, started.set_result, None)
        try:
            self.service.batcher.run()
        except BaseException as error:  # its message could hold a text
            logger.error(f"the model thread ends: {type(error).__name__}")
        _call(loop, self._end_model)

    def _end_model(self) -> None:
        self._died.set()
        self.service.abandon()

    async def _until_stopped(self, *tasks: "asyncio.Task[bool]") -> None:
        """Wait for a signal or for the end of the model thread, and share metrics meanwhile."""
        while not any(task.done() for task in tasks):
            if self._is_worker:
                self.service.share_metrics()
            await asyncio.wait(tasks, timeout=1.0 if self._is_worker else None, return_when=asyncio.FIRST_COMPLETED)

    async def _drain(self, died: "asyncio.Task[bool]") -> None:
        self.service.draining = True
        if died.done():
            return
        if self.app.in_flight:
            logger.info(f"shutting down: finishing {self.app.in_flight} requests")
        idle = asyncio.ensure_future(self.app.idle.wait())
        await asyncio.wait((idle, died), timeout=self._drain_seconds, return_when=asyncio.FIRST_COMPLETED)
        idle.cancel()
        if self.app.in_flight:
            raise WorkError(f"{self.app.in_flight} requests were not finished within {self._drain_seconds:g} s")


def run_server(settings: ServerSettings, sock: socket.socket, *, opening: OpenModel = open_model) -> None:
    """Serve in this process until SIGTERM or Ctrl-C."""

    async def run() -> None:
        process = ServerProcess(
            settings, sock, opening=opening, on_ready=lambda: logger.info(_announcement(process.service, sock))
        )
        logger.info(f"loading {settings.model}; {url_of(sock)}/health/ready answers 200 when it is ready")
        await process.run()

    asyncio.run(run())
    leave_if_computing()


def leave_if_computing(code: int = 0) -> None:
    """End the process at once if the model thread still computes, which would break the interpreter's own end."""
    for thread in threading.enumerate():
        if thread.name == _MODEL_THREAD:
            thread.join(timeout=1)
            if thread.is_alive():
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)


def _announcement(service: Service, sock: socket.socket) -> str:
    model = service.model
    index = "" if service.index is None else f", index of {service.index.about['documents']:,} documents"
    return (
        f"serving {model.name} at {url_of(sock)} ({model.dimension} dimensions, texts up to {model.max_tokens} tokens, "
        f"{service.queue.most_tokens:,} tokens may wait{index}); stop it with Ctrl-C"
    )


def _open_index(settings: ServerSettings, model: Model) -> OpenIndex | None:
    return None if settings.index is None else open_searcher(settings.index, model.fingerprint, model.dimension)


def _call(loop: asyncio.AbstractEventLoop, work: Callable[..., object], *arguments: object) -> None:
    """Run `work` in the loop, unless that has ended."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(work, *arguments)
