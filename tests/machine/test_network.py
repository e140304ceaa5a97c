"""Asking the hub: against local servers that answer, refuse, or stay silent."""

import http.server
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from gemma4vec.machine import network
from gemma4vec.machine.network import ping_hub


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


class Answer(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response(403 if self.path.startswith("/forbidden") else 200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.mark.parametrize("path", ["", "/forbidden"])
def test_an_answer_of_any_status_is_an_answer(server: str, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server + path)
    state = ping_hub(5)
    assert state.reachable and server in state.reason


def test_a_refused_connection_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
        state = ping_hub(5)
    assert not state.reachable and "cannot be reached" in state.reason


def test_silence_ends_at_the_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        before = time.monotonic()
        state = ping_hub(0.3)
    assert not state.reachable
    assert time.monotonic() - before < 25


def test_a_name_lookup_that_hangs_ends_at_the_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(network, "_ask", lambda _: release.wait(300))
    before = time.monotonic()
    state = ping_hub(0.2)
    assert not state.reachable and "within 0.2 s" in state.reason
    assert time.monotonic() - before < 25
    release.set()


@pytest.mark.parametrize("value", ["1", "true", "ON"])
def test_offline_by_choice_asks_nobody(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    monkeypatch.setattr(network, "_ask", lambda _: pytest.fail("asked"))
    assert not ping_hub(1).reachable
