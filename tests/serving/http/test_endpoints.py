"""The application in this process, on a stub model: replies, refusals, overload, time limits, clients that leave."""

import asyncio
import base64
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from running_service import asking, running
from stub_model import LIMIT, StubModel, document_vector, query_vector, vector_of

from gemma4vec.serving.http.api_errors import ApiError
from gemma4vec.serving.http.endpoints import make_app
from gemma4vec.serving.http.guard import is_loopback, read_body, read_tokens
from gemma4vec.serving.http.searcher import open_searcher
from gemma4vec.serving.http.server_settings import ServerSettings
from gemma4vec.serving.http.service import Service
from gemma4vec.serving.search.documents import IndexedDocument
from gemma4vec.serving.search.index import SearchIndex
from gemma4vec.serving.store.open_store import create_store
from gemma4vec.serving.store.recall_gate import build_and_check
from gemma4vec.serving.store.rows import Row, make_rows
from gemma4vec.serving.store.search_store import add_rows
from gemma4vec.serving.store.store_meta import StoreMeta

Ask = Callable[[httpx2.AsyncClient], Coroutine[Any, Any, None]]


def served(ask: Ask, model: StubModel | None = None, index: Any = None, **settings: Any) -> StubModel:
    """Run `ask` with a client of a service."""
    model = model or StubModel()

    async def run() -> None:
        with running(model, index, **settings) as service:
            async with asking(service) as client:
                await ask(client)

    asyncio.run(run())
    return model


async def embed(client: httpx2.AsyncClient, given: Any, **fields: Any) -> httpx2.Response:
    return await client.post("/v1/embeddings", json={"input": given, **fields})


def vectors(reply: httpx2.Response) -> np.ndarray:
    assert reply.status_code == 200, reply.text
    data = reply.json()["data"]
    assert [one["index"] for one in data] == list(range(len(data)))
    return np.array([one["embedding"] for one in data], dtype=np.float32)


def error(reply: httpx2.Response, status: int) -> dict[str, Any]:
    assert reply.status_code == status, reply.text
    found = reply.json()["error"]
    assert set(found) == {"message", "type", "param", "code"}
    return dict(found)


def test_embeddings_in_both_forms_and_roles() -> None:
    async def ask(client: httpx2.AsyncClient) -> None:
        reply = await embed(client, ["a b", "c"], model="stub")
        assert (vectors(reply) == [query_vector("a b"), query_vector("c")]).all()  # float32 is read back exactly
        found = reply.json()
        assert found["object"] == "list" and found["model"] == "stub" and "truncated" not in found
        assert found["usage"] == {"prompt_tokens": 13, "total_tokens": 13}  # 5 words of the prompt each
        reply = await embed(client, "a", input_type="document", title="t", encoding_format="base64")
        raw = base64.b64decode(reply.json()["data"][0]["embedding"])
        assert (np.frombuffer(raw, "<f4") == vector_of("title: t | text: a")).all()
        short = vectors(await embed(client, "a", dimensions=4))[0]
        whole = query_vector("a")[:4]
        assert np.allclose(short, whole / np.linalg.norm(whole), atol=1e-6) and short.shape == (4,)
        many = [f"text {i}" for i in range(200)]
        assert (vectors(await embed(client, many)) == [query_vector(text) for text in many]).all()
        assert (vectors(await embed(client, [3, 4]))[0] == vector_of("3 4")).all()
        assert error(await embed(client, [3, 4000]), 400)["param"] == "input[0]"

    served(ask)


def test_long_texts_are_named_or_reported() -> None:
    long = " ".join(["w"] * 100)

    async def refused(client: httpx2.AsyncClient) -> None:
        found = error(await embed(client, ["a", long, "b", long]), 400)
        assert found["code"] == "context_length_exceeded"
        assert "input[1] has 105, input[3] has 105" in found["message"] and f"limit of {LIMIT}" in found["message"]

    async def truncated(client: httpx2.AsyncClient) -> None:
        reply = await embed(client, ["a", long])
        assert reply.json()["truncated"] == [1] and reply.json()["usage"]["prompt_tokens"] == 6 + LIMIT
        assert (await embed(client, ["a"])).json()["truncated"] == []
        assert "gemma4vec_truncated_texts_total 1" in (await client.get("/metrics")).text

    served(refused)
    served(truncated, too_long="truncate")


def test_too_many_tokens_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gemma4vec.serving.http.server_settings.MOST_TOKENS", 50)

    async def ask(client: httpx2.AsyncClient) -> None:
        assert error(await embed(client, ["a"] * 9), 400)["code"] == "too_many_tokens"

    assert served(ask).batches == []


def test_one_text_over_the_batch_is_computed() -> None:
    async def ask(client: httpx2.AsyncClient) -> None:
        long = " ".join(["w"] * 40)
        assert (vectors(await embed(client, ["a", long, "b"]))[1] == query_vector(long)).all()

    served(ask, batch_tokens=10)


def test_a_poisoned_text_fails_its_request_alone() -> None:
    async def ask(client: httpx2.AsyncClient) -> None:
        model.gate.clear()
        asked = [embed(client, ["fine", "poison", "x"]), *(embed(client, f"other {i}") for i in range(10))]
        tasks = [asyncio.ensure_future(one) for one in (*asked, embed(client, ["nan"]))]
        await asyncio.to_thread(model.began.wait, 60)
        model.gate.set()
        replies = await asyncio.gather(*tasks)
        found = error(replies[0], 500)
        assert found["param"] == "input[1]" and found["code"] == "not_encoded"
        assert error(replies[-1], 500)["param"] == "input[0]"
        for i, reply in enumerate(replies[1:-1]):
            assert (vectors(reply)[0] == query_vector(f"other {i}")).all()

    model = StubModel()
    served(ask, model)


def test_models_info_health_and_metrics() -> None:
    async def ask(client: httpx2.AsyncClient) -> None:
        listed = (await client.get("/v1/models")).json()
        assert [one["id"] for one in listed["data"]] == ["stub"] and listed["object"] == "list"
        assert (await client.get("/v1/models/stub")).json()["owned_by"] == "gemma4vec"
        assert error(await client.get("/v1/models/gpt"), 404)["code"] == "model_not_found"
        info = (await client.get("/info")).json()
        assert info["fingerprint"] == "f" * 64 and info["dimensions"] == [4, 8] and info["prompts"]["query"]
        assert info["limits"]["inputs"] == 2048 and info["limits"]["tokens_of_a_text"] == LIMIT
        assert (await client.get("/health/live")).status_code == 200
        assert (await client.get("/health/ready")).json() == {"status": "ready"}
        await embed(client, ["a", "b"])
        await embed(client, "")
        text = (await client.get("/metrics")).text
        assert 'gemma4vec_requests_total{endpoint="/v1/embeddings",status="200"} 1\n' in text
        assert 'gemma4vec_requests_total{endpoint="/v1/embeddings",status="400"} 1\n' in text
        assert "gemma4vec_texts_total 2\n" in text and "gemma4vec_ready 1\n" in text
        assert 'gemma4vec_batch_tokens_bucket{le="+Inf"} 1\n' in text
        assert 'gemma4vec_queue_tokens{priority="bulk"} 0\n' in text
        assert error(await client.get("/nothing"), 404)["type"] == "invalid_request_error"
        assert error(await client.get("/v1/embeddings"), 405)["message"]

    served(ask)


def test_search(tmp_path: Path) -> None:
    documents = [IndexedDocument(f"d{i}", f"text {i}", title="t") for i in range(20)]
    rows = np.stack([query_vector(f"q {i}") for i in range(20)])
    SearchIndex.save(tmp_path / "index", documents, rows, model="stub", fingerprint="f" * 64)

    async def ask(client: httpx2.AsyncClient) -> None:
        reply = (await client.post("/v1/search", json={"query": ["q 3", "q 7"], "k": 2})).json()
        hits = [one["hits"] for one in reply["data"]]
        assert [[hit["rank"] for hit in row] for row in hits] == [[1, 2], [1, 2]]
        assert [row[0]["id"] for row in hits] == ["d3", "d7"] and hits[0][0]["text"] == "text 3"
        assert hits[0][0]["score"] == pytest.approx(1.0) and reply["usage"]["total_tokens"] == 14
        assert (await client.get("/info")).json()["index"]["documents"] == 20

    async def filtered(client: httpx2.AsyncClient) -> None:
        asked = {"query": "q 3", "k": 2, "filter": "year > 2004"}
        hits = (await client.post("/v1/search", json=asked)).json()["data"][0]["hits"]
        assert len(hits) == 2 and all(int(hit["id"][1:]) > 4 for hit in hits)
        for bad in ("year >", "month = 1", 3):
            assert error(await client.post("/v1/search", json={**asked, "filter": bad}), 400)["param"] == "filter"
        assert (await client.get("/info")).json()["index"]["recall"]["recall"] == 1.0

    async def without(client: httpx2.AsyncClient) -> None:
        assert error(await client.post("/v1/search", json={"query": "a"}), 404)["code"] == "no_index"

    served(ask, index=open_searcher(str(tmp_path / "index"), "f" * 64, 8))
    store = create_store(str(tmp_path / "store"), StoreMeta("stub", "f" * 64, 8, {"year": "int"}))
    add_rows(store, make_rows([Row(f"d{i}", fields={"year": 2000 + i}) for i in range(20)], rows, {"year": "int"}))
    build_and_check(store, held_out=5)
    store.close()
    served(filtered, index=open_searcher(str(tmp_path / "store"), "f" * 64, 8))
    served(without)


def test_overload_gives_200_or_429_and_accepted_texts_are_right() -> None:
    async def ask(client: httpx2.AsyncClient) -> None:
        model.gate.clear()
        first = asyncio.ensure_future(embed(client, "first"))
        await asyncio.to_thread(model.began.wait, 60)
        # Nothing is computed now, so every reply until the gate opens is a refusal.
        tasks = {}
        for i in range(60):
            texts = [f"text {i}"] if i % 2 else [f"text {i} {j}" for j in range(6)]
            tasks[i] = (texts, asyncio.ensure_future(embed(client, texts)))
        refusals = 0
        while refusals < 40:
            await asyncio.sleep(0)
            refusals = sum(task.done() for _, task in tasks.values())
        assert {task.result().status_code for _, task in tasks.values() if task.done()} == {429}
        model.gate.set()
        refused = {True: 0, False: 0}
        for texts, task in tasks.values():
            reply = await task
            if reply.status_code == 200:
                assert (vectors(reply) == [query_vector(text) for text in texts]).all()
            else:
                assert error(reply, 429)["code"] == "queue_full" and int(reply.headers["retry-after"]) >= 1
                refused[len(texts) == 1] += 1
        assert refused[True] and refused[False]  # single and batch requests alike
        assert (await first).status_code == 200
        assert (await embed(client, "afterwards")).status_code == 200  # nothing is held for ever

    model = StubModel()
    served(ask, model, queue_tokens=100)


def test_a_time_limit_ends_the_request_and_its_texts_are_not_computed() -> None:
    async def ask(client: httpx2.AsyncClient) -> None:
        model.gate.clear()
        first = asyncio.ensure_future(embed(client, "first"))
        await asyncio.to_thread(model.began.wait, 60)
        late = await client.post("/v1/embeddings", json={"input": "late"}, headers={"X-Timeout-Ms": "5"})
        assert error(late, 504)["code"] == "deadline_exceeded"
        bad = await client.post("/v1/embeddings", json={"input": "late"}, headers={"X-Timeout-Ms": "soon"})
        assert error(bad, 400)["param"] == "X-Timeout-Ms"
        model.gate.set()
        assert (await first).status_code == 200
        assert (await embed(client, "last")).status_code == 200

    model = StubModel()
    served(ask, model)
    assert not any("late" in text for batch in model.batches for text in batch)


def test_texts_of_a_client_that_left_are_not_computed() -> None:
    async def run() -> None:
        with running(model) as service:
            app = make_app(service)
            model.gate.clear()
            async with asking(service) as client:
                first = asyncio.ensure_future(embed(client, "first"))
                await asyncio.to_thread(model.began.wait, 60)
                sent, leaves = [], asyncio.Event()
                app_task = asyncio.ensure_future(
                    app(scope("/v1/embeddings"), leaving(b'{"input": "gone"}', leaves), sent.append)
                )  # type: ignore[arg-type]
                while not service.queue.waiting or service.queue.tokens(bulk=False) == 0:
                    await asyncio.sleep(0)
                leaves.set()
                await app_task
                assert sent == [] and service.queue.waiting == 0
                model.gate.set()
                assert (await first).status_code == 200
                assert 'status="499"' in (await client.get("/metrics")).text

    model = StubModel()
    asyncio.run(run())
    assert not any("gone" in text for batch in model.batches for text in batch)


def scope(path: str, **headers: str) -> dict[str, Any]:
    given = {"host": "localhost", **headers}
    return {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
    }


def leaving(body: bytes, leaves: asyncio.Event) -> Callable[[], Awaitable[dict[str, Any]]]:
    """A client that sends a body and closes the connection when `leaves` is set."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop(0)
        await leaves.wait()
        return {"type": "http.disconnect"}

    return receive


def test_bodies_that_are_large_or_slow() -> None:
    async def ask(client: httpx2.AsyncClient) -> None:
        found = error(await client.post("/v1/embeddings", content=b" " * 3_000_000), 413)
        assert found["code"] == "body_too_large"

        async def pieces() -> Any:
            for _ in range(30):
                yield b" " * 100_000

        assert error(await client.post("/v1/embeddings", content=pieces()), 413)

    served(ask)

    async def slow() -> None:
        async def receive() -> dict[str, Any]:
            await asyncio.Event().wait()
            return {}

        with pytest.raises(ApiError) as found:
            await read_body(receive, httpx2.Headers(), seconds=0.01)  # type: ignore[arg-type]
        assert found.value.status == 408

    asyncio.run(slow())


def test_tokens_are_asked_for_where_they_are_set() -> None:
    async def ask(client: httpx2.AsyncClient) -> None:
        for header in (None, "", "Bearer", "Bearer wrong", "Basic right-1", "Bearer right-1x", "Bearer \u00e9"):
            headers = {} if header is None else {"Authorization": header.encode()}
            for path in ("/v1/models", "/info", "/metrics"):
                found = error(await client.get(path, headers=headers), 401)
                assert found["code"] == "invalid_api_key" and "right" not in found["message"]
        for token in ("right-1", "right-2"):
            assert (await client.get("/v1/models", headers={"Authorization": f"Bearer {token}"})).status_code == 200
        assert (await client.get("/health/live")).status_code == 200
        assert (await client.get("/health/ready")).status_code == 200
        assert (
            await client.get("/info", headers={"Authorization": "bearer right-1", "Host": "example.org"})
        ).status_code == 200

    served(ask, tokens=("right-1", "right-2"))


def test_without_a_token_only_names_of_this_machine_are_answered() -> None:
    async def ask(client: httpx2.AsyncClient) -> None:
        for host in ("localhost:80", "127.0.0.1:8000", "[::1]:8000", "127.9.9.9"):
            assert (await client.get("/info", headers={"Host": host})).status_code == 200
        for host in ("evil.example", "localhost.evil.example", "10.0.0.1"):
            assert error(await client.get("/info", headers={"Host": host}), 403)

    served(ask)
    assert is_loopback("localhost") and is_loopback("::1") and not is_loopback("0.0.0.0") and not is_loopback("a.b")


def test_a_token_file_has_a_token_a_line(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("one\n\n  two \n")
    assert read_tokens(file) == ("one", "two")
    from gemma4vec.errors import InputError

    for content, words in ((b"", "is empty"), (b"\n \n", "is empty"), (b"a b\n", "line 1"), (b"\xff", "not UTF-8")):
        file.write_bytes(content)
        with pytest.raises(InputError, match=words):
            read_tokens(file)
    with pytest.raises(InputError, match="cannot be read"):
        read_tokens(tmp_path / "missing")


def test_what_is_not_ready_answers_503() -> None:
    async def run() -> None:
        service = Service(ServerSettings("stub"))
        async with asking(service) as client:
            for path in ("/health/ready", "/info", "/v1/models"):
                found = error(await client.get(path), 503)
                assert found["code"] == "loading"
            assert error(await embed(client, "a"), 503)["code"] == "loading"
            assert (await client.get("/health/live")).status_code == 200
            assert "gemma4vec_ready 0" in (await client.get("/metrics")).text
        service.close()
        with running(StubModel()) as service:
            async with asking(service) as client:
                service.draining = True
                assert error(await embed(client, "a"), 503)["code"] == "shutting_down"
                assert (await client.get("/health/ready")).headers["retry-after"] == "1"

    asyncio.run(run())


def test_a_mistake_of_ours_is_a_500_without_texts(caplog: pytest.LogCaptureFixture) -> None:
    async def ask(client: httpx2.AsyncClient) -> None:
        found = error(await embed(client, "a secret"), 500)
        assert "secret" not in json.dumps(found)

    model = StubModel()

    def read(texts: Any) -> Any:
        raise RuntimeError(str(texts))

    model.read = read  # type: ignore[method-assign]
    with caplog.at_level(logging.DEBUG):
        served(ask, model)
    assert "secret" not in caplog.text and "unexpected RuntimeError at test_endpoints.py" in caplog.text


def test_two_thousand_requests_of_64_clients_are_answered_each_with_its_own() -> None:
    async def ask(client: httpx2.AsyncClient) -> None:
        async def one_client(number: int) -> int:
            right = 0
            for turn in range(32):
                count = (1, 2, 3, 7)[(number + turn) % 4]
                texts = [f"client {number} turn {turn} text {i} " + "w " * (turn % 9) for i in range(count)]
                role = ("query", "document")[turn % 2]
                reply = await embed(client, texts, input_type=role)
                expected = [(query_vector, document_vector)[turn % 2](text) for text in texts]
                right += bool((vectors(reply) == expected).all())
            return right

        assert sum(await asyncio.gather(*(one_client(number) for number in range(64)))) == 64 * 32

    model = served(ask, queue_tokens=10**6)
    assert max(len(batch) for batch in model.batches) > 8  # texts of several clients were computed together
