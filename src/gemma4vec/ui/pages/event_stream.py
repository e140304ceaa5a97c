"""`/api/runs/ID/events`: the lines of events.jsonl as they are written, as server-sent events."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from gemma4vec.ledger.run_folder import EVENTS, MANIFEST, RunFolder, parse_events, replace_nonfinite
from gemma4vec.ui.content.event_log import read_tail
from gemma4vec.ui.window import Window

PAUSE_SECONDS = 0.4
_QUIET_PAUSES = 25  # without a line: then a comment, so that a broken connection is noticed


async def event_stream(window: Window, request: Request) -> Response:
    """Stream from byte `from`, or after the last event that the browser had.

    Raises:
        InputError: the ledger has no such run, or its folder is gone.
    """
    run = await run_in_threadpool(window.runs.folder, request.path_params["run_id"])
    given = request.headers.get("last-event-id") or request.query_params.get("from", "0")
    start = int(given) if given.isascii() and given.isdigit() and len(given) < 16 else 0
    return StreamingResponse(tail_events(run.path, start, window.closing), media_type="text/event-stream")


async def tail_events(
    folder: Path, start: int, closing: asyncio.Event, pause: float = PAUSE_SECONDS
) -> AsyncIterator[str]:
    """Yield messages until `closing` is set or the folder is gone.

    Unnamed messages are events of the run, whose id is the byte behind their line. `state` says whether the run trains;
    `gone` is the last one of a run whose folder is gone.
    """
    trains: bool | None = None
    quiet = 0
    while not closing.is_set():
        if not (folder / MANIFEST).is_file():
            yield _message({"gone": str(folder)}, "gone")
            return
        held = await run_in_threadpool(_is_held, folder)
        if held != trains:
            trains = held
            yield _message({"trains": trains}, "state")
        try:
            data, end = await run_in_threadpool(read_tail, folder / EVENTS, start)
        except OSError:
            data, end = b"", 0  # a run without a step
        place = end - len(data)
        for line in data.splitlines(keepends=True):
            place += len(line)
            for event in parse_events(line):
                yield _message(event, at=place)
        start = end
        quiet = 0 if data else quiet + 1
        if quiet >= _QUIET_PAUSES:
            quiet = 0
            yield ": nothing new\n\n"
        if not data:
            await _sleep(closing, pause)


def _is_held(folder: Path) -> bool:
    try:
        return RunFolder(folder).is_held()
    except OSError:
        return False  # a lock that cannot be read says nothing


async def _sleep(closing: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(closing.wait(), seconds)
    except TimeoutError:
        return


def _message(value: Any, name: str = "", at: int | None = None) -> str:
    """One message; JSON has no line ends, so `data` is one line."""
    head = (f"event: {name}\n" if name else "") + (f"id: {at}\n" if at is not None else "")
    return f"{head}data: {json.dumps(replace_nonfinite(value))}\n\n"
