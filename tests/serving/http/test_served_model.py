"""A real tiny model behind the server: the vectors are the embedder's, through the openai client too."""

import asyncio
import base64
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
from running_service import asking, running
from tiny_gemma import save_tiny_run

from gemma4vec.errors import InputError
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.serving.http.api_errors import ApiError
from gemma4vec.serving.http.endpoints import make_app
from gemma4vec.serving.http.served_model import ServedModel, open_served_model
from gemma4vec.serving.http.server_settings import ServerSettings, find_served_model
from gemma4vec.text.prompts import Document, Prompted

TEXTS = [
    "open a file",
    "return the list",
    " ",
    "<eos> and <bos>",
    "naïve café \U0001f600\u200d\U0001f680",
    "data " * 30,
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bidirectional, mean, two dense layers, Matryoshka, prompts."""
    folder = tmp_path_factory.mktemp("served")
    return save_tiny_run(
        folder,
        (16,),
        attention="bidirectional",
        readout={"name": "mean"},
        head={"widths": [48, 24]},
        prompts="retrieval",
        max_tokens=160,
    )


@pytest.fixture(scope="module")
def model(run: Path) -> ServedModel:
    found = open_served_model(ServerSettings(find_served_model(str(run)), dtype="fp32", name="tiny"))
    assert isinstance(found, ServedModel)
    return found


def test_a_run_is_opened_with_the_lengths_it_was_trained_for(model: ServedModel) -> None:
    assert model.dimensions == (16, 24) and model.dimension == 24 and model.name == "tiny"
    assert model.prompts.query == "task: search result | query: "


def test_what_cannot_be_served_is_one_line(tmp_path: Path, run: Path) -> None:
    unfinished = tmp_path / "runs" / "begun"
    unfinished.mkdir(parents=True)
    (unfinished / "manifest.json").write_text('{"run_id": "begun", "name": "begun", "created": "2026-01-01T00:00:00"}')
    with pytest.raises(InputError, match="is not finished and has no model; go on with: gemma4vec train --resume"):
        find_served_model(str(unfinished))
    with pytest.raises(InputError, match="no run 'nowhere'"):
        find_served_model("nowhere")

    class Foreign:
        name = "all-minilm"

    with pytest.raises(InputError, match="all-minilm is a model of another tool"):
        ServedModel(Foreign())  # type: ignore[arg-type]


def ask(model: Any, **settings: Any) -> Any:
    """Replies of the service to one body."""

    async def post(body: dict[str, Any]) -> httpx2.Response:
        with running(model, **{"default_input_type": None, **settings}) as service:
            async with asking(service) as client:
                return await client.post("/v1/embeddings", json=body)

    return lambda **body: asyncio.run(post(body))


def test_vectors_are_the_embedders(model: ServedModel, run: Path) -> None:
    expected = Embedder.load(run / "model", dtype="fp32")
    post = ask(model)
    for role, vectors in (
        ("query", expected.encode_query(TEXTS)),
        ("document", expected.encode_document([Document(text, "a title") for text in TEXTS])),
    ):
        title = {"title": "a title"} if role == "document" else {}
        reply = post(input=TEXTS, input_type=role, **title).json()
        found = np.array([one["embedding"] for one in reply["data"]])
        assert np.abs(found - vectors).max() < 1e-6
        read = expected.read([model.prompts.for_query(text) for text in TEXTS], expected.max_tokens)  # type: ignore[attr-defined]
        if role == "query":
            assert reply["usage"]["total_tokens"] == sum(tokens.length for tokens in read)
    short = np.array(post(input="open a file", input_type="query", dimensions=16).json()["data"][0]["embedding"])
    kept = expected.encode_query(["open a file"])[0, :16]
    assert np.abs(short - kept / np.linalg.norm(kept)).max() < 1e-6


def test_token_ids_are_all_that_the_model_reads(model: ServedModel) -> None:
    texts = [model.prompts.for_query(text) for text in TEXTS]
    ids = [list(text.tokens.ids) for text in model.read(texts)]
    post = ask(model)
    whole = np.array([one["embedding"] for one in post(input=ids).json()["data"]])
    by_text = np.array([one["embedding"] for one in post(input=TEXTS, input_type="query").json()["data"]])
    assert np.abs(whole - by_text).max() < 1e-6
    assert post(input=ids[0]).json()["usage"]["total_tokens"] == len(ids[0])
    # Ids of another tokenizer have no BOS, or are beyond the vocabulary.
    for wrong, words in (([ids[0][1:]], "must start with"), ([[*ids[0], 10**6]], "outside"), ([[-1]], "outside")):
        reply = post(input=wrong)
        assert reply.status_code == 400 and words in reply.json()["error"]["message"]


def test_a_readout_that_leaves_the_prompt_out_refuses_token_ids(model: ServedModel, monkeypatch: Any) -> None:
    monkeypatch.setattr(model.embedder.encoder.readout, "pool_prompt", False)
    with pytest.raises(ApiError, match="where the prompt ends"):
        model.from_ids([[2, 5]])


def test_texts_at_the_limit(model: ServedModel, run: Path) -> None:
    limit = model.max_tokens
    whole = model.read([Prompted("", "data " * 4 * limit)])[0]
    assert whole.truncated and whole.tokens.length == limit and whole.whole > limit
    text = "a" + "€" * limit  # one token or more a character
    sizes = {n: model.read([Prompted("", text[:n])])[0].whole for n in range(1, limit)}
    fits = max(n for n, size in sizes.items() if size <= limit)
    at, over = model.read([Prompted("", text[:fits])])[0], model.read([Prompted("", text[: fits + 1])])[0]
    assert not at.truncated and over.truncated and over.whole == sizes.get(fits + 1, over.whole)
    expected = Embedder.load(run / "model", dtype="fp32")
    post = ask(model, too_long="truncate")
    long = "return the list " * limit
    reply = post(input=["a", long], input_type="query").json()
    assert reply["truncated"] == [1]
    assert np.abs(np.array(reply["data"][1]["embedding"]) - expected.encode_query([long])[0]).max() < 1e-6
    refused = ask(model)(input=["a", long], input_type="query").json()["error"]
    assert refused["code"] == "context_length_exceeded" and "input[1] has " in refused["message"]


def test_warming_up_measures_a_rate(model: ServedModel) -> None:
    assert model.warm_up(256, compile_layers=False) > 1


def test_warming_up_meets_every_kind_of_rectangle(tmp_path: Path) -> None:
    run = save_tiny_run(tmp_path, (16,), attention="causal", readout={"name": "last_token"}, max_tokens=128)
    model = open_served_model(ServerSettings(find_served_model(str(run)), dtype="fp32"))
    seen = set()
    whole = model.embedder._forward
    model.embedder._forward = lambda layouts: (
        [  # type: ignore[method-assign,assignment]
            seen.add((one.input_ids_RC.shape[0] > 1, one.shared > 0)) for one in layouts
        ]
        and whole(layouts)
    )
    model.warm_up(256, compile_layers=False)
    assert seen == {(False, False), (False, True), (True, False), (True, True)}


def test_the_openai_client(model: ServedModel) -> None:
    async def calls() -> None:
        with running(model, default_input_type="query") as service:
            transport = httpx2.ASGITransport(app=make_app(service))
            async with httpx2.AsyncClient(transport=transport) as http:
                client = openai.AsyncOpenAI(
                    base_url="http://localhost/v1", api_key="none", http_client=http, max_retries=0
                )
                expected = model.embedder.encode_query(["open a file", "b"])
                both = await client.embeddings.create(model="tiny", input=["open a file", "b"])  # base64 by itself
                assert np.abs(np.array([one.embedding for one in both.data]) - expected).max() < 1e-6
                assert both.usage.total_tokens > 0 and both.model == "tiny" and both.object == "list"
                floats = await client.embeddings.create(model="tiny", input="open a file", encoding_format="float")
                assert np.abs(np.array(floats.data[0].embedding) - expected[0]).max() < 1e-6
                raw = await client.embeddings.create(model="tiny", input="open a file", encoding_format="base64")
                decoded = np.frombuffer(base64.b64decode(str(raw.data[0].embedding)), "<f4")
                assert np.abs(decoded - expected[0]).max() < 1e-6
                short = await client.embeddings.create(model="tiny", input="open a file", dimensions=16)
                assert len(short.data[0].embedding) == 16
                document = await client.embeddings.create(
                    model="tiny", input="b", extra_body={"input_type": "document", "title": "t"}
                )
                own = model.embedder.encode_document([Document("b", "t")])[0]
                assert np.abs(np.array(document.data[0].embedding) - own).max() < 1e-6
                with pytest.raises(openai.BadRequestError, match="trained") as found:
                    await client.embeddings.create(model="tiny", input="a", dimensions=15)
                assert found.value.param == "dimensions"
                with pytest.raises(openai.NotFoundError):
                    await client.embeddings.create(model="text-embedding-3-small", input="a")
                assert [one.id async for one in client.models.list()] == ["tiny"]

    asyncio.run(calls())
