"""A client of OpenAI-compatible embedding servers: llama-server, text-embeddings-inference, vLLM, Ollama, our own.

The prompts are put before the texts here, because these servers apply none by themselves. Only `gemma4vec serve` does:
it is asked by role.
"""

import base64
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from gemma4vec.errors import InputError, WorkError
from gemma4vec.export.runtimes.job import RefusedTextError, RoleText, Vectors
from gemma4vec.text.encodable import encodable
from gemma4vec.text.prompts import Prompts

_SECONDS = 300  # a batch of long texts on a slow machine
_OVERLOADED = (429, 503)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    """Leaves redirections to the caller, as errors."""

    def redirect_request(self, *_: object) -> None:
        return None


class OpenAiClient:
    """Encodes by `POST /v1/embeddings`.

    Args:
        url: `http://host:port`, with or without `/v1` or `/v1/embeddings`.
        prompts: put before the texts, unless the server applies its own.
        model: name of the model for the server; None: the first one that it lists.
        token: bearer token, if the server wants one.

    Raises:
        InputError: no URL; or nothing answers there.
    """

    def __init__(self, url: str, prompts: Prompts, *, model: str | None = None, token: str | None = None):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"{url} is no URL of a server; give one such as http://127.0.0.1:8080")
        path = parts.path.rstrip("/").removesuffix("/embeddings").removesuffix("/v1")
        self.root = f"{parts.scheme}://{parts.netloc}{path}"
        self.prompts = prompts
        self._token = token
        # A server of this machine is not behind the proxy that the environment names. A redirection would carry the
        # token to another host, so it is an answer like any other.
        own: dict[str, str] | None = {} if parts.hostname in _LOOPBACK else None
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler(own), _NoRedirection())
        listed = self._first_model(needed=model is None)
        self.model = model or str(listed["id"])
        self._by_role = listed.get("owned_by") == "gemma4vec"
        self._tokenize: _Tokenizer | None = None
        self._asked_for_tokens = False

    @property
    def version(self) -> str:
        """The server's address and its model."""
        return f"{self.model} at {self.root}"

    def encode(self, texts: Sequence[RoleText]) -> Vectors:
        """Vectors `[N, D]`, in the order of the texts, as the server returns them.

        Raises:
            RefusedTextError: the server answers 400, 413, 422 or, for a long text, 500.
            WorkError: it answers something else, or nothing.
        """
        if not self._by_role:
            return self._embed({"input": [self._whole(text) for text in texts]}, len(texts))
        found: dict[int, Vectors] = {}
        for role in dict.fromkeys(text.role for text in texts):
            places = [place for place, text in enumerate(texts) if text.role == role]
            given = {"input": [encodable(texts[place].text) for place in places], "input_type": role}
            found |= dict(zip(places, self._embed(given, len(places)), strict=True))
        return np.stack([found[place] for place in range(len(texts))])

    def _embed(self, given: dict[str, Any], count: int) -> Vectors:
        reply = self._post("/v1/embeddings", {"model": self.model, **given, "encoding_format": "float"})
        try:
            rows = sorted(reply["data"], key=lambda row: row["index"])
            vectors = [_vector(row["embedding"]) for row in rows]
            if len(vectors) != count or len({len(vector) for vector in vectors}) != 1:
                raise ValueError(f"{len(vectors)} vectors for {count} texts, or of different lengths")
        except (KeyError, TypeError, ValueError) as error:
            raise WorkError(f"{self.root}/v1/embeddings: its reply is not OpenAI's ({error!r})") from error
        return np.stack(vectors)

    def tokens(self, text: RoleText) -> list[int] | None:
        """Token ids by the server's own `/tokenize`, in any of the forms that servers have."""
        if not self._asked_for_tokens:
            self._asked_for_tokens = True
            self._tokenize = next((form for form in _TOKENIZERS if self._tokens(form, "a") is not None), None)
        return None if self._tokenize is None else self._tokens(self._tokenize, self._whole(text))

    def _whole(self, text: RoleText) -> str:
        given = self.prompts.for_query(text.text) if text.role == "query" else self.prompts.for_document(text.text)
        return encodable(given.prompt + given.text)

    def _tokens(self, form: "_Tokenizer", text: str) -> list[int] | None:
        ask, read = form
        try:
            return read(self._post("/tokenize", ask(text, self.model)))
        except (RefusedTextError, WorkError, KeyError, TypeError, ValueError, IndexError):
            return None

    def _first_model(self, *, needed: bool) -> dict[str, Any]:
        """What the server says of its first model; empty where it says nothing and nothing is needed."""
        try:
            first = self._request("/v1/models", None)["data"][0]
            return {"id": first["id"], "owned_by": first.get("owned_by")}
        except (InputError, WorkError):
            if needed:
                raise
        except (AttributeError, KeyError, TypeError, IndexError) as error:
            if needed:
                raise InputError(f"{self.root}/v1/models lists no model; name one with --model") from error
        return {}

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        return self._request(path, json.dumps(body).encode())

    def _request(self, path: str, body: bytes | None) -> Any:
        headers = {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(self.root + path, data=body, headers=headers)
        try:
            with self._opener.open(request, timeout=_SECONDS) as reply:
                return json.loads(reply.read())
        except urllib.error.HTTPError as error:
            said = _said(error.read())
            if error.code in (401, 403):
                raise InputError(f"{self.root} refuses the token ({error.code}); give one with --token-file") from error
            if body is not None and 400 <= error.code <= 500 and error.code not in (404, *_OVERLOADED):
                raise RefusedTextError(f"{error.code}: {said}") from error
            raise WorkError(f"{self.root}{path} answers {error.code}: {said}") from error
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, OSError) as error:
            reason = getattr(error, "reason", error)
            raise InputError(f"{self.root} cannot be reached ({reason}); is the server running?") from error
        except (ValueError, RecursionError) as error:
            raise WorkError(f"{self.root}{path}: its reply is not JSON") from error


def _said(reply: bytes) -> str:
    """The message of an error in the forms that servers have, in one line."""
    text = reply.decode("utf-8", "replace")
    try:
        found = json.loads(text)
        for key in ("error", "message", "detail"):
            found = found.get(key, found) if isinstance(found, dict) else found
        text = found if isinstance(found, str) else text
    except (ValueError, RecursionError):
        pass  # not JSON: its text is the message
    return " ".join(text.split())[:200]


_Tokenizer = tuple[Callable[[str, str], dict[str, Any]], Callable[[Any], list[int]]]


def _first_of_all(reply: Any) -> list[int]:
    return [int(token["id"]) for token in reply[0]]


_TOKENIZERS: tuple[_Tokenizer, ...] = (
    # llama-server
    (
        lambda text, _: {"content": text, "add_special": True, "parse_special": True},
        lambda reply: [int(token) for token in reply["tokens"]],
    ),
    # vLLM
    (
        lambda text, model: {"model": model, "prompt": text, "add_special_tokens": True},
        lambda reply: [int(token) for token in reply["tokens"]],
    ),
    # text-embeddings-inference
    (lambda text, _: {"inputs": text, "add_special_tokens": True}, _first_of_all),
)


def _vector(given: Any) -> Vectors:
    """A vector as JSON numbers or as base64 of little-endian float32. null, as some servers write NaN, is NaN."""
    if isinstance(given, str):
        return np.frombuffer(base64.b64decode(given), dtype="<f4").astype(np.float32)
    return np.array([np.nan if value is None else value for value in given], dtype=np.float32)
