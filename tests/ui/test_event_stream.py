"""Live events: complete lines alone, from any byte on, until the window or the run's folder goes away."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from ledger_samples import make_run
from open_window import open_window

from gemma4vec.files import home
from gemma4vec.ledger.run_folder import EVENTS, RunFolder
from gemma4vec.ui.content.event_log import EventLogs, read_tail
from gemma4vec.ui.pages.event_stream import tail_events


def test_a_torn_last_line_waits(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_bytes(b'{"a": 1}\n{"b"')
    data, end = read_tail(file, 0)
    assert (data, end) == (b'{"a": 1}\n', 9) and read_tail(file, 9) == (b"", 9)
    with file.open("ab") as stream:
        stream.write(b': 2}\n{"c": 3}\n')
    assert read_tail(file, 9) == (b'{"b": 2}\n{"c": 3}\n', 27)
    assert read_tail(file, 10_000) == (file.read_bytes(), 27)  # a shorter file is another one
    with pytest.raises(FileNotFoundError):
        read_tail(tmp_path / "none", 0)


def test_a_line_longer_than_one_read_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gemma4vec.ui.content.event_log._AT_ONCE", 4)
    file = tmp_path / "events.jsonl"
    file.write_bytes(b'{"long": "line"}\n{"x": 1}\n')
    data, end = read_tail(file, 0)
    assert data.startswith(b'{"long": "line"}\n') and file.read_bytes()[:end] == data


def test_a_log_reads_only_what_is_new_and_equals_the_whole(tmp_path: Path) -> None:
    run = make_run(home())
    logs = EventLogs()
    for step in range(5):
        run.event("step", step=step, loss=1.0)
        with (run.path / EVENTS).open("ab") as stream:
            stream.write(b'{"torn')
        found, offset = logs.read(run.path)
        assert list(found) == list(run.events()) and offset <= (run.path / EVENTS).stat().st_size
    assert len(found.torn) == 4  # the last torn line has not ended
    (run.path / EVENTS).write_text('{"event": "step", "step": 9}\n')
    assert [one["step"] for one in logs.read(run.path)[0]] == [9]
    (run.path / EVENTS).unlink()
    assert list(logs.read(run.path)[0]) == []


def messages(text: str) -> list[tuple[str, str, Any]]:
    """(event, id, data) of each message."""
    found = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        found.append((fields.get("event", ""), fields.get("id", ""), json.loads(fields["data"])))
    return found


def collect(run: RunFolder, start: int, act: Any) -> list[tuple[str, str, Any]]:
    """The messages of a stream; `act` is called with what has come so far, until it returns True."""

    async def go() -> str:
        closing, text = asyncio.Event(), ""
        async for part in tail_events(run.path, start, closing, pause=0.001):
            text += part
            if act(messages(text)):
                closing.set()
        return text

    return messages(asyncio.run(go()))


def test_events_come_as_they_are_written_and_after_the_last_one_seen() -> None:
    run = make_run(home())
    written = iter(range(3))

    def act(seen: list[Any]) -> bool:
        if (step := next(written, None)) is not None:
            run.event("step", step=step, loss=float("nan"))
        return len(seen) >= 5

    found = collect(run, 0, act)
    assert found[0][2] == {"trains": False} and found[0][0] == "state"
    assert [one[2]["event"] for one in found[1:]] == ["finished", "step", "step", "step"]
    assert found[2][2]["loss"] is None
    size = (run.path / EVENTS).stat().st_size
    assert int(found[-1][1]) == size
    later = collect(run, int(found[2][1]), lambda seen: len(seen) >= 3)
    assert [one[2].get("step") for one in later[1:]] == [1, 2]


def test_the_stream_of_a_deleted_run_ends() -> None:
    run = make_run(home())
    found = collect(run, 0, lambda seen: shutil.rmtree(run.path, ignore_errors=True))
    assert found[-1][0] == "gone"


def test_an_odd_start_is_the_beginning() -> None:
    run = make_run(home())
    window, client = open_window()
    window.closing.set()  # so that the reply ends
    for start in ("", "x", "-5", "²", "9" * 40):
        reply = client.get(f"/api/runs/{run.run_id}/events?from={start}")
        assert reply.status_code == 200 and reply.headers["content-type"].startswith("text/event-stream")
