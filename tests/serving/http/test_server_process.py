"""A server's process: its port, its signals, its connections, its workers. The model is a stub, the rest is real."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from raw_http import Connection
from stub_model import StubModel, query_vector

from gemma4vec.errors import InputError, WorkError
from gemma4vec.serving.http.http_protocol import TimedProtocol, bind
from gemma4vec.serving.http.server import ServerProcess
from gemma4vec.serving.http.server_settings import ServerSettings
from gemma4vec.serving.http.workers import Supervisor

HELPERS = Path(__file__).parents[2] / "helpers"
STUB_SERVER = str(HELPERS / "stub_server.py")
SETTINGS = ServerSettings("stub", port=0, default_input_type="query", compile=False, queue_tokens=10**6)
PATIENCE = 60  # seconds after which a test that hangs fails


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    found = bind("127.0.0.1", 0)
    yield found
    found.close()


def port_of(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


def is_right(reply: tuple[int, Any], text: str) -> bool:
    status, value = reply
    assert status == 200, value
    return bool((np.array(value["data"][0]["embedding"], dtype=np.float32) == query_vector(text)).all())


def within(work: Any) -> Any:
    """Run a coroutine; one that hangs fails."""
    return asyncio.run(asyncio.wait_for(work, PATIENCE))


async def started(process: ServerProcess) -> "asyncio.Task[None]":
    """Run a server in this loop until it is ready."""
    ready = asyncio.Event()
    process.on_ready = ready.set
    task = asyncio.create_task(process.run())
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
    assert ready.is_set()
    return task


def test_a_port_in_use_is_one_line(sock: socket.socket) -> None:
    with pytest.raises(InputError, match=f"--port {port_of(sock)} is in use on 127.0.0.1; choose another"):
        bind("127.0.0.1", port_of(sock))
    with pytest.raises(InputError, match="use an address of this machine"):
        bind("203.0.113.1", 0)
    with pytest.raises(InputError, match="use an address of this machine"):
        bind("no such host.invalid", 0)


def test_stopping_finishes_what_was_accepted_and_refuses_the_rest(sock: socket.socket) -> None:
    model, before = StubModel(), set(threading.enumerate())

    async def run() -> None:
        process = ServerProcess(SETTINGS, sock, opening=lambda settings: model)
        task = await started(process)
        port = port_of(sock)
        model.gate.clear()
        connections = [await Connection(port).open() for _ in range(20)]
        asked = [
            asyncio.create_task(one.ask("POST", "/v1/embeddings", {"input": f"text {i}"}))
            for i, one in enumerate(connections)
        ]
        await asyncio.to_thread(model.began.wait, PATIENCE)
        while process.app.in_flight < 20:
            await asyncio.sleep(0)
        async with Connection(port) as other:
            process.stop()
            await asyncio.sleep(0)
            while not process.service.draining:
                await asyncio.sleep(0)
            assert (await other.ask("GET", "/health/ready"))[0] == 503
            assert (await other.ask("GET", "/health/live"))[0] == 200
            status, value = await other.ask("POST", "/v1/embeddings", {"input": "too late"})
            assert status == 503 and value["error"]["code"] == "shutting_down"
        model.gate.set()
        assert all(is_right(reply, f"text {i}") for i, reply in enumerate(await asyncio.gather(*asked)))
        await task
        with pytest.raises(ConnectionError):
            await Connection(port).open()

    within(run())
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE)
        assert not thread.is_alive(), thread.name


def test_requests_that_do_not_end_in_time_are_reported(sock: socket.socket) -> None:
    model = StubModel()

    async def run() -> None:
        process = ServerProcess(SETTINGS, sock, opening=lambda settings: model, drain_seconds=0.01)
        task = await started(process)
        model.gate.clear()
        async with Connection(port_of(sock)) as one:
            asked = asyncio.create_task(one.ask("POST", "/v1/embeddings", {"input": "slow"}))
            await asyncio.to_thread(model.began.wait, PATIENCE)
            process.stop()
            while not process.service.draining:
                await asyncio.sleep(0)
            await asyncio.sleep(0.05)
            model.gate.set()
            with pytest.raises(WorkError, match="1 requests were not finished"):
                await task
            assert is_right(await asked, "slow")

    within(run())


def test_a_model_that_cannot_be_opened_ends_the_server(sock: socket.socket) -> None:
    def opening(settings: ServerSettings) -> Any:
        raise InputError("no such model; use another")

    with pytest.raises(InputError, match="no such model"):
        within(ServerProcess(SETTINGS, sock, opening=opening).run())


def test_a_model_thread_that_dies_ends_the_server(sock: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    model = StubModel()

    def encode(tokens: Any) -> Any:
        raise SystemExit  # neither an error of a text nor of a batch

    monkeypatch.setattr(model, "encode", encode)

    async def run() -> None:
        task = await started(ServerProcess(SETTINGS, sock, opening=lambda settings: model, drain_seconds=0))
        async with Connection(port_of(sock)) as one:
            asked = asyncio.create_task(one.ask("POST", "/v1/embeddings", {"input": "a"}))
            assert (await asked)[0] == 503
            with pytest.raises(WorkError, match="model thread has ended"):
                await task

    within(run())


def test_slow_and_broken_clients_lose_their_connection_alone(
    sock: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TimedProtocol, "head_seconds", 0.05)

    async def run() -> None:
        process = ServerProcess(SETTINGS, sock, opening=lambda settings: StubModel())
        task = await started(process)
        port = port_of(sock)
        silent, dripping, good = [await Connection(port).open() for _ in range(3)]
        assert is_right(await good.ask("POST", "/v1/embeddings", {"input": "first"}), "first")
        dripping.writer.write(b"POST /v1/embeddings HTTP/1.1\r\nHost: local")
        # Both are closed by the server; the next request's head has its own clock.
        assert await silent.reader.read() == b""
        with pytest.raises(ConnectionError):
            assert await dripping.reader.read() == b""
            raise ConnectionResetError
        assert is_right(await good.ask("POST", "/v1/embeddings", {"input": "second"}), "second")
        for garbage in (b"\x00\xff\xfe\r\n\r\n", b"GET / HTTP/9\r\n\r\n", b"POST /v1/embeddings HTTP/1.1\r\n\r\n"):
            async with Connection(port) as odd:
                odd.writer.write(garbage)
                assert (await odd.reader.read()).startswith(b"HTTP/1.1 4")
        half = await Connection(port).open()
        half.writer.write(b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\n{")
        while not process.app.in_flight:
            await asyncio.sleep(0)
        half.writer.close()
        assert is_right(await good.ask("POST", "/v1/embeddings", {"input": "third"}), "third")
        while process.app.in_flight:
            await asyncio.sleep(0)
        process.stop()
        await task

    within(run())


def test_sigterm_under_load_loses_nothing_and_exits_with_0() -> None:
    process = subprocess.Popen([sys.executable, STUB_SERVER, SETTINGS.as_json()], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    lines = [process.stderr.readline(), process.stderr.readline()]
    assert "loading stub" in lines[0] and "serving stub at http://127.0.0.1:" in lines[1], lines
    port = int(lines[1].split("127.0.0.1:")[1].split()[0])

    async def client(number: int, answered: list[int], loaded: asyncio.Event) -> None:
        async with Connection(port) as one:
            for turn in range(10**6):
                text = f"client {number} turn {turn}"
                try:
                    status, value = await one.ask("POST", "/v1/embeddings", {"input": text})
                except ConnectionError as error:
                    assert "after 0 bytes" in str(error) or "after" not in str(error)  # no half reply
                    return
                if status == 503:
                    assert value["error"]["code"] == "shutting_down"
                    return
                assert is_right((status, value), text)
                answered.append(number)
                if len(answered) >= 300:
                    loaded.set()

    async def run() -> int:
        answered: list[int] = []
        loaded = asyncio.Event()
        clients = [asyncio.create_task(client(number, answered, loaded)) for number in range(16)]
        await loaded.wait()
        process.send_signal(signal.SIGTERM)
        await asyncio.gather(*clients)
        return len(answered)

    assert within(run()) >= 300
    assert process.wait(PATIENCE) == 0
    assert "Traceback" not in process.stderr.read()


def test_a_killed_worker_is_replaced_and_no_reply_is_wrong(sock: socket.socket) -> None:
    settings = ServerSettings.from_json(SETTINGS.as_json())
    settings = ServerSettings(**{**vars(settings), "workers": 2})

    async def client(port: int, number: int, over: asyncio.Event) -> tuple[int, int]:
        right = lost = 0
        connection = await Connection(port).open()
        while not over.is_set():
            text = f"client {number} text {right}"
            try:
                right += is_right(await connection.ask("POST", "/v1/embeddings", {"input": text}), text)
            except ConnectionError:  # its worker was killed: asked again, on another connection
                lost += 1
                connection = await Connection(port).open()
        connection.writer.close()
        return right, lost

    async def run() -> None:
        supervisor = Supervisor(settings, sock, [sys.executable, STUB_SERVER])
        task = asyncio.create_task(supervisor.run())
        await supervisor.all_ready.wait()
        over = asyncio.Event()
        clients = [asyncio.create_task(client(port_of(sock), number, over)) for number in range(12)]
        async with Connection(port_of(sock)) as one:
            await one.ask("POST", "/v1/embeddings", {"input": "a"})
            killed = supervisor.pids[0]
            os.kill(killed, signal.SIGKILL)
            while not supervisor.restarted or supervisor.pids.get(0, killed) == killed or len(supervisor.ready) < 2:
                await asyncio.sleep(0.01)
        over.set()
        found = await asyncio.gather(*clients)
        assert all(right for right, _ in found) and supervisor.pids[0] != killed
        async with Connection(port_of(sock)) as one:
            text = (await one.ask("GET", "/metrics"))[1]
            assert 'gemma4vec_ready{worker="0"} 1' in text and 'gemma4vec_ready{worker="1"} 1' in text
            assert text.count("# TYPE gemma4vec_ready gauge") == 1
        pids = list(supervisor.pids.values())
        supervisor.stop()
        await task
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)

    within(run())


def test_workers_that_cannot_start_end_the_server_with_their_reason(sock: socket.socket, tmp_path: Path) -> None:
    settings = ServerSettings(**{**vars(SETTINGS), "workers": 2})
    program = tmp_path / "refusing.py"
    program.write_text('import sys; sys.stdin.readline(); print(\'{"error": "no run; make one", "exit_code": 2}\')')
    with pytest.raises(InputError, match="no run; make one"):
        within(Supervisor(settings, sock, [sys.executable, str(program)]).run())
    program.write_text("import sys; sys.exit(3)")
    with pytest.raises(WorkError, match="ended with exit code 3 while it loaded"):
        within(Supervisor(settings, sock, [sys.executable, str(program)]).run())
