"""The server of one window: its socket, its first URL, its end."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import tempfile
import webbrowser
from collections.abc import Callable
from functools import partial
from pathlib import Path

from gemma4vec.errors import Gemma4VecError
from gemma4vec.serving.http.http_protocol import SignalFreeServer, uvicorn_config
from gemma4vec.ui.app import PAGES, load_page, make_app
from gemma4vec.ui.window import Window

logger = logging.getLogger(__name__)


def run_window(home: Path, sock: socket.socket, *, read_only: bool = False, browser: bool = True) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Args:
        home: the outputs' folder.
        sock: a listening socket of 127.0.0.1.
        read_only: whether nothing can be recorded.
        browser: whether to open a browser.
    """
    with tempfile.TemporaryDirectory(prefix="gemma4vec-ui-") as folder:
        opening = partial(open_browser, Path(folder)) if browser else lambda _: None
        asyncio.run(serve(home, sock, read_only=read_only, on_ready=opening))


async def serve(home: Path, sock: socket.socket, *, read_only: bool, on_ready: Callable[[str], None]) -> None:
    """Serve in this loop; `on_ready` gets the first URL once requests are answered."""
    window = Window(home, sock.getsockname()[1], read_only)
    server = SignalFreeServer(uvicorn_config(make_app(window)))

    def stop() -> None:
        window.closing.set()
        server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(ValueError, RuntimeError):  # in a thread, signals are the caller's
            loop.add_signal_handler(number, stop)
    serving = loop.create_task(server.serve([sock]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.001)
    mode = ", read-only" if read_only else ""
    logger.info(f"{home}{mode}: open {window.first_url}\nstop it with Ctrl-C")
    # In a thread: a browser may take seconds to start.
    opening = loop.run_in_executor(None, on_ready, window.first_url)
    warming = loop.run_in_executor(None, warm, window)  # while the browser starts
    await serving
    await warming
    with contextlib.suppress(asyncio.CancelledError):
        await opening
    if window.is_computing:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def warm(window: Window) -> None:
    """Read what the first page needs."""
    with contextlib.suppress(Gemma4VecError, OSError):  # the page itself says what is wrong
        load_page(PAGES["/"])
        for name in ("frame.html", "runs.html", "parts/paging.html"):
            window.templates.get_template(name)
        window.runs.all()


def open_browser(folder: Path, url: str) -> None:
    """Open a page in `folder` that leads to `url`, so that the secret is in no command line that others can list."""
    file = folder / "open.html"  # the folder is its owner's alone
    file.write_text(f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={url}">')
    if not webbrowser.open(file.as_uri()):
        logger.info("no browser was found; open the address yourself")
