"""What a server answers: embeddings, search, models, health, metrics."""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from starlette.exceptions import HTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from gemma4vec import __version__
from gemma4vec.errors import InputError
from gemma4vec.model.inference.truncated_embedder import truncate
from gemma4vec.serving.http import server_settings as limits
from gemma4vec.serving.http.api_errors import (
    ApiError,
    ClientLeftError,
    bad_request,
    expired,
    not_encoded,
    overloaded,
    unavailable,
)
from gemma4vec.serving.http.embedding_request import (
    EmbeddingRequest,
    Offer,
    read_embedding_request,
    read_search_request,
    read_timeout_ms,
)
from gemma4vec.serving.http.guard import Guard, read_body
from gemma4vec.serving.http.reply_body import embedding_reply
from gemma4vec.serving.http.server_metrics import CONTENT_TYPE
from gemma4vec.serving.http.service import MODEL_BROKEN, Service
from gemma4vec.serving.http.text_queue import Job
from gemma4vec.text.prompts import Document, Prompted

if TYPE_CHECKING:
    from gemma4vec.serving.http.served_model import ReadText

T = TypeVar("T")

_TEXTS_AT_ONCE = 32  # tokenized in one piece; between two pieces other requests have their turn
_CHARACTERS_AT_ONCE = 32_768
_BYTES_OF_A_TOKEN = 6  # of a body, for the estimate before it is tokenized; most texts have fewer


class Endpoints:
    """The handlers of a service."""

    def __init__(self, service: Service):
        self.service = service

    async def embeddings(self, request: Request) -> Response:
        """`POST /v1/embeddings`."""
        started = time.monotonic()
        service = self._ready()
        milliseconds = read_timeout_ms(request.headers.get("x-timeout-ms"))
        deadline = started + milliseconds / 1000
        body = await read_body(request.receive, request.headers)

        def read() -> tuple[EmbeddingRequest, list[Prompted]]:
            offer = Offer((service.model.name,), service.model.dimensions, service.settings.default_input_type)
            asked = read_embedding_request(body, offer)
            return asked, self._prompted(asked)

        with self._reserved(body):
            asked, texts = await self._in(service.reader, read)
            read_texts = await self._tokenize(texts)
        truncated = self._check_lengths(read_texts)
        vectors_ND = await self._encode(request, read_texts, deadline, milliseconds)
        if asked.dimension is not None and asked.dimension != vectors_ND.shape[1]:
            vectors_ND = truncate(vectors_ND, asked.dimension)
        reply = await embedding_reply(
            vectors_ND,
            model=service.model.name,
            tokens=sum(text.tokens.length for text in read_texts),
            as_base64=asked.base64,
            truncated=truncated if service.settings.too_long == "truncate" else None,
        )
        return Response(reply, media_type="application/json")

    async def search(self, request: Request) -> Response:
        """`POST /v1/search`."""
        started = time.monotonic()
        service = self._ready()
        if service.index is None:
            raise ApiError(404, "this server has no index; start it with --index DIR", code="no_index")
        milliseconds = read_timeout_ms(request.headers.get("x-timeout-ms"))
        body = await read_body(request.receive, request.headers)
        with self._reserved(body):
            asked = await self._in(service.reader, lambda: read_search_request(body, [service.model.name]))
            read_texts = await self._tokenize([service.model.prompts.for_query(query) for query in asked.queries])
        truncated = self._check_lengths(read_texts, "query")
        vectors_ND = await self._encode(request, read_texts, started + milliseconds / 1000, milliseconds)
        searcher = service.index.searcher
        try:
            hits = await self._in(service.searching, lambda: _found(searcher.search(vectors_ND, asked.k, asked.where)))
        except InputError as error:  # a filter on fields that the index does not have
            raise bad_request(str(error), "filter") from None
        tokens = sum(text.tokens.length for text in read_texts)
        reply: dict[str, Any] = {
            "object": "list",
            "data": [{"object": "search_result", "index": index, "hits": found} for index, found in enumerate(hits)],
            "model": service.model.name,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
        if service.settings.too_long == "truncate":
            reply["truncated"] = truncated
        return JSONResponse(reply)

    async def models(self, request: Request) -> Response:
        """`GET /v1/models` and `/v1/models/NAME`."""
        service = self._ready()
        name = request.path_params.get("name")
        about = {"id": service.model.name, "object": "model", "created": service.created, "owned_by": "gemma4vec"}
        if name is None:
            return JSONResponse({"object": "list", "data": [about]})
        if name != service.model.name:
            raise ApiError(
                404, f"this server has the model {service.model.name} alone", param="model", code="model_not_found"
            )
        return JSONResponse(about)

    async def info(self, request: Request) -> Response:
        """`GET /info`: what a client must know to use the vectors rightly."""
        service = self._ready()
        model = service.model
        return JSONResponse(
            {
                "version": __version__,
                "model": model.name,
                "fingerprint": model.fingerprint,
                "dimension": model.dimension,
                "dimensions": list(model.dimensions),
                "prompts": model.prompts.as_dict(),
                "settings": model.describe(),
                "default_input_type": service.settings.default_input_type,
                "too_long": service.settings.too_long,
                "limits": {
                    "tokens_of_a_text": model.max_tokens,
                    "inputs": limits.MOST_INPUTS,
                    "tokens_of_a_request": limits.MOST_TOKENS,
                    "body_bytes": limits.MOST_BODY_BYTES,
                    "timeout_ms": limits.LONGEST_TIMEOUT_MS,
                    "default_timeout_ms": limits.DEFAULT_TIMEOUT_MS,
                    "hits": limits.MOST_HITS,
                    "batch_tokens": service.queue.batch_tokens,
                    "queue_tokens": service.queue.most_tokens,
                },
                "workers": service.settings.workers,
                "index": None if service.index is None else service.index.about,
            }
        )

    async def live(self, request: Request) -> Response:
        """`GET /health/live`: the process answers."""
        return JSONResponse({"status": "live"})

    async def ready(self, request: Request) -> Response:
        """`GET /health/ready`: requests are accepted."""
        self._ready()
        return JSONResponse({"status": "ready"})

    async def metrics(self, request: Request) -> Response:
        """`GET /metrics`."""
        return Response(self.service.render_metrics(), media_type=CONTENT_TYPE)

    def _ready(self) -> Service:
        """The service, if it accepts requests.

        Raises:
            ApiError: 503: still loading, shutting down, or broken.
        """
        reason = self.service.reason_not_ready()
        if reason is not None:
            raise unavailable(*reason)
        return self.service

    def _prompted(self, asked: EmbeddingRequest) -> list[Prompted]:
        model = self.service.model
        if asked.ids:
            return model.from_ids(asked.ids)
        if asked.input_type == "query":
            return [model.prompts.for_query(text) for text in asked.texts]
        return [
            model.prompts.for_document(Document(text, title))
            for text, title in zip(asked.texts, asked.titles, strict=True)
        ]

    def _reserved(self, body: bytes) -> "_Reservation":
        return _Reservation(self.service, max(1, len(body) // _BYTES_OF_A_TOKEN))

    async def _tokenize(self, texts: Sequence[Prompted]) -> "list[ReadText]":
        read: list[ReadText] = []
        for piece in _pieces(texts):
            read += await self._in(self.service.reader, lambda piece=piece: self.service.model.read(piece))  # type: ignore[misc]
        return read

    def _check_lengths(self, texts: "Sequence[ReadText]", name: str = "input") -> list[int]:
        """Indices of the texts that were truncated.

        Raises:
            ApiError: 400: too many tokens in all, or texts over the limit that must not be truncated.
        """
        total = sum(text.tokens.length for text in texts)
        if total > limits.MOST_TOKENS:
            raise bad_request(
                f"{name} has {total} tokens in all; at most {limits.MOST_TOKENS} are allowed", name, "too_many_tokens"
            )
        over = [index for index, text in enumerate(texts) if text.truncated]
        if over and self.service.settings.too_long == "error":
            named = ", ".join(f"{name}[{index}] has {texts[index].whole}" for index in over[:20])
            more = f" and {len(over) - 20} more" if len(over) > 20 else ""
            raise bad_request(
                f"texts over the limit of {self.service.model.max_tokens} tokens, prompt included: {named}{more}; "
                "shorten them, or start the server with --too-long truncate",
                name,
                "context_length_exceeded",
            )
        if over:
            self.service.metrics.count("gemma4vec_truncated_texts_total", len(over))
        return over

    async def _encode(
        self, request: Request, texts: "Sequence[ReadText]", deadline: float, milliseconds: int
    ) -> NDArray[np.float32]:
        """Vectors `[N, D]` of a request, whose texts are given up when its time is over or its client leaves."""
        service = self.service
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def finish(job: Job) -> None:
            """From the model thread."""
            loop.call_soon_threadsafe(_set, done)

        job = Job([text.tokens for text in texts], deadline, finish)
        if deadline <= time.monotonic():
            raise expired(milliseconds)
        if not service.queue.admit(job):
            raise overloaded(service.seconds_until_free())
        service.waiting.add(done)
        left = asyncio.ensure_future(_wait_until_left(request))
        try:
            await asyncio.wait(
                (done, left), timeout=max(0.0, deadline - time.monotonic()), return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            left.cancel()
            service.waiting.discard(done)
            if job.left:
                service.queue.cancel(job)
        if job.failed is not None:
            raise not_encoded(job.failed)
        if job.vectors_ND is not None and not job.left:
            return job.vectors_ND
        if service.broken:
            raise unavailable(*MODEL_BROKEN)
        if left.done() and not left.cancelled():
            raise ClientLeftError
        raise expired(milliseconds)

    async def _in(self, executor: Executor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(executor, work)


class _Reservation:
    """Room in the queue for a request that is being tokenized.

    Raises:
        ApiError: 429: the queue is full.
    """

    def __init__(self, service: Service, tokens: int):
        self.queue, self.tokens = service.queue, tokens
        if not self.queue.reserve(tokens):
            raise overloaded(service.seconds_until_free())

    def __enter__(self) -> None:
        return

    def __exit__(self, *_: object) -> None:
        self.queue.release(self.tokens)


def _set(done: "asyncio.Future[None]") -> None:
    if not done.done():
        done.set_result(None)


async def _wait_until_left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue


def _pieces(texts: Sequence[Prompted]) -> list[list[Prompted]]:
    pieces: list[list[Prompted]] = []
    room = 0
    for text in texts:
        if not pieces or len(pieces[-1]) >= _TEXTS_AT_ONCE or len(text.text) > room:
            pieces.append([])
            room = _CHARACTERS_AT_ONCE
        pieces[-1].append(text)
        room -= len(text.text)
    return pieces


def _found(hits: Sequence[Sequence[Any]]) -> list[list[dict[str, Any]]]:
    """Hits as JSON values; a score that is no number becomes null."""
    return [
        [
            {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in one}
            for one in (hit.as_dict().items() for hit in row)
        ]
        for row in hits
    ]


async def _http_error(request: Request, error: Exception) -> Response:
    """404 and 405 of the router, as OpenAI's error object."""
    assert isinstance(error, HTTPException)
    found = ApiError(error.status_code, f"{error.detail}; see /info and the documentation", code="not_found")
    return JSONResponse(found.body(), found.status, headers=error.headers)


def make_app(service: Service) -> Guard:
    """The ASGI application of a service, which need not be started yet."""
    endpoints = Endpoints(service)
    routes = [
        Route("/v1/embeddings", endpoints.embeddings, methods=["POST"]),
        Route("/v1/search", endpoints.search, methods=["POST"]),
        Route("/v1/models", endpoints.models, methods=["GET"]),
        Route("/v1/models/{name:path}", endpoints.models, methods=["GET"]),
        Route("/health/live", endpoints.live, methods=["GET"]),
        Route("/health/ready", endpoints.ready, methods=["GET"]),
        Route("/metrics", endpoints.metrics, methods=["GET"]),
        Route("/info", endpoints.info, methods=["GET"]),
    ]
    # The router alone, without Starlette's layers: the guard is the one place where errors end.
    router = Router(routes, redirect_slashes=False)

    async def route(scope: Scope, receive: Receive, send: Send) -> None:
        await router({**scope, "app": router}, receive, send)  # with "app" the router raises its 404 and 405

    app = ExceptionMiddleware(route, handlers={HTTPException: _http_error})
    return Guard(app, service.metrics, service.settings.tokens, frozenset(route.path for route in routes))
