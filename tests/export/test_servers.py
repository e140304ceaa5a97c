"""`parity` against servers: llama.cpp's own, and servers with each fault of a reply."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorded_looks import recorded_looks

from gemma4vec.errors import InputError, WorkError
from gemma4vec.export.check_parity import check_parity
from gemma4vec.export.formats.gguf_file import write_gguf
from gemma4vec.export.runtimes.job import RefusedTextError, RoleText, answer
from gemma4vec.export.runtimes.openai_client import OpenAiClient
from gemma4vec.export.runtimes.run_llama_cpp import LlamaCpp
from gemma4vec.export.source import Source
from gemma4vec.text.prompts import Prompts


@pytest.fixture(scope="module")
def gguf(sources: dict[str, Source], tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(sources["both"], file, "f32", 24)
    return file


def test_a_running_llama_server_and_its_file_are_compared(gguf: Path, both: Path, causal: Path, suite: Path) -> None:
    server = LlamaCpp(gguf, 48, 1)
    report = check_parity(f"{server.address}/v1", str(both), suite=str(suite))
    assert (
        report.passed and report.tokens >= 230 and report.over_limit == "refuses" and server.address in report.runtime
    )
    other = check_parity(server.address, str(causal), suite=str(suite))
    assert not other.passed and any(line.startswith("token ids differ") for line in other.problems)
    assert "likely cause" not in other.line() or "tokenizer" in other.cause
    assert report.ranking is not None
    assert [(command, name) for command, name, *_ in recorded_looks()][:1] == [("parity", report.ranking.suite)]


Reply = Callable[[str, Any], tuple[int, Any]]


@contextmanager
def serving(reply: Reply) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def _answer(self, body: Any) -> None:
            code, value = reply(self.path, body)
            raw = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def log_message(self, *_: Any) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def embeddings(vector: Any) -> Reply:
    def reply(path: str, body: Any) -> tuple[int, Any]:
        if path == "/v1/models":
            return 200, {"data": [{"id": "m"}]}
        if path == "/tokenize":
            return 404, {"error": "no such path"}
        rows = [{"index": i, "embedding": vector} for i in range(len(body["input"]))]
        return 200, {"data": rows[::-1]}

    return reply


TEXT = RoleText("query", "a")


def test_replies_in_other_forms_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # not for a server of this machine
    raw = base64.b64encode(np.array([0.6, 0.8], dtype="<f4").tobytes()).decode()
    for vector in ([0.6, 0.8], raw):
        with serving(embeddings(vector)) as url:
            client = OpenAiClient(url + "/v1/embeddings", Prompts("q: "))
            np.testing.assert_allclose(client.encode([TEXT, TEXT]), [[0.6, 0.8]] * 2, rtol=1e-6)
            assert client.model == "m" and client.tokens(TEXT) is None
    with serving(embeddings([None, 1.0])) as url:
        assert np.isnan(OpenAiClient(url, Prompts()).encode([TEXT])[0, 0])


@pytest.mark.parametrize("model", [None, "m"])
def test_our_own_server_is_asked_by_role_and_gets_no_prompt(model: str | None) -> None:
    asked: list[tuple[str, list[str]]] = []

    def reply(path: str, body: Any) -> tuple[int, Any]:
        if path == "/v1/models":
            return 200, {"data": [{"id": "m", "owned_by": "gemma4vec"}]}
        asked.append((body["input_type"], body["input"]))
        return 200, {"data": [{"index": i, "embedding": [len(text), 1.0]} for i, text in enumerate(body["input"])]}

    texts = [RoleText("document", "aa"), RoleText("query", "b"), RoleText("document", "cccc")]
    with serving(reply) as url:
        found = OpenAiClient(url, Prompts("q: ", "d: "), model=model).encode(texts)
    assert asked == [("document", ["aa", "cccc"]), ("query", ["b"])] and found[:, 0].tolist() == [2, 1, 4]


def test_token_ids_are_asked_in_the_servers_own_form() -> None:
    def reply(path: str, body: Any) -> tuple[int, Any]:
        if "inputs" not in (body or {}):  # text-embeddings-inference
            return 422, {"error": "missing field inputs"}
        return 200, [[{"id": 7, "text": body["inputs"]}, {"id": 9, "text": ""}]]

    with serving(reply) as url:
        assert OpenAiClient(url, Prompts(), model="m").tokens(TEXT) == [7, 9]


def test_a_text_that_is_refused_does_not_take_its_batch_along() -> None:
    def reply(path: str, body: Any) -> tuple[int, Any]:
        if any(len(text) > 5 for text in body["input"]):
            return 413, {"error": {"message": "too long", "code": 413}}
        return 200, {"data": [{"index": i, "embedding": [1.0]} for i in range(len(body["input"]))]}

    with serving(reply) as url:
        client = OpenAiClient(url, Prompts(), model="m")
        with pytest.raises(RefusedTextError, match="413: too long"):
            client.encode([RoleText("query", "much too long")])
        found = answer(client, [[TEXT, RoleText("query", "much too long"), TEXT]], [])
    assert found.refused == {1: "413: too long"} and np.isnan(found.vectors_ND[:, 0]).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("code", "value", "error", "message"),
    [
        (401, {"error": "who are you"}, InputError, "refuses the token (401); give one with --token-file"),
        (429, {"error": "busy"}, WorkError, "answers 429: busy"),
        (200, b"<html>", WorkError, "its reply is not JSON"),
        (200, b"[" * 100_000, WorkError, "its reply is not JSON"),
        (200, {"vectors": []}, WorkError, "its reply is not OpenAI's"),
        (200, {"data": []}, WorkError, "its reply is not OpenAI's"),
        (404, {"error": "no"}, WorkError, "answers 404: no"),
        (307, {"error": "elsewhere"}, WorkError, "answers 307: elsewhere"),
    ],
)
def test_a_bad_reply_is_one_line(code: int, value: Any, error: type[Exception], message: str) -> None:
    with serving(lambda *_: (code, value)) as url, pytest.raises(error) as caught:
        OpenAiClient(url, Prompts(), model="m").encode([TEXT])
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_nobody_there_and_no_url() -> None:
    with pytest.raises(InputError, match="cannot be reached"):
        OpenAiClient("http://127.0.0.1:9", Prompts())
    for url in ("ftp://x", "http://", "localhost:80"):
        with pytest.raises(InputError, match="is no URL"):
            OpenAiClient(url, Prompts())
    with serving(lambda *_: (200, {"data": []})) as url, pytest.raises(InputError, match="lists no model"):
        OpenAiClient(url, Prompts())
