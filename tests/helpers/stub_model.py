"""A model of hashed words for servers: fast, exact, without torch, and it fails where a test wants it to."""

import hashlib
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gemma4vec.serving.http.api_errors import bad_request
from gemma4vec.text.pretokenized import PretokenizedText
from gemma4vec.text.prompts import RETRIEVAL, Prompted

DIMENSION = 8
LIMIT = 64  # words of a text with its prompt


class StubTokens(NamedTuple):
    """A text, whose words are its tokens."""

    text: str

    @property
    def length(self) -> int:
        return len(self.text.split())


class StubRead(NamedTuple):
    tokens: StubTokens
    whole: int
    truncated: bool


def vector_of(text: str) -> np.ndarray:
    """The vector of a text with its prompt; texts that differ have different ones."""
    raw = np.frombuffer(hashlib.sha256(text.encode()).digest()[:DIMENSION], np.uint8).astype(np.float32) - 127.5
    return raw / np.linalg.norm(raw)


def query_vector(text: str) -> np.ndarray:
    return vector_of("".join(RETRIEVAL.for_query(text)))


def document_vector(text: str) -> np.ndarray:
    return vector_of("".join(RETRIEVAL.for_document(text)))


class StubModel:
    """Raises on texts with `poison`, returns NaN for those with `nan`; `gate` holds every batch until it is set."""

    name, fingerprint, dimension, dimensions = "stub", "f" * 64, DIMENSION, (4, DIMENSION)
    prompts, max_tokens, tokens_per_forward = RETRIEVAL, LIMIT, 256

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.began = threading.Event()  # a batch has been taken

    def describe(self) -> dict[str, Any]:
        return {"kind": "stub"}

    def read(self, texts: Sequence[Prompted]) -> list[StubRead]:
        found = []
        for prompt, text in texts:
            words = (prompt + text).split()
            is_cut = len(words) > LIMIT
            found.append(StubRead(StubTokens(" ".join(words[:LIMIT]) if is_cut else prompt + text), len(words), is_cut))
        return found

    def from_ids(self, ids: Sequence[Sequence[int]]) -> list[Prompted]:
        for index, one in enumerate(ids):
            if max(one) >= 1000 or min(one) < 0:
                raise bad_request(f"input[{index}] has token ids outside 0 to 999", f"input[{index}]")
        return [Prompted("", PretokenizedText(one)) for one in ids]

    def encode(self, tokens: Sequence[StubTokens]) -> np.ndarray:
        self.batches.append([one.text for one in tokens])
        self.began.set()
        self.gate.wait(60)
        if any("poison" in one.text for one in tokens):
            raise RuntimeError("a text: " + tokens[0].text)
        vectors = np.stack([vector_of(one.text) for one in tokens])
        vectors[["nan" in one.text for one in tokens]] = np.nan
        return vectors

    def warm_up(self, batch_tokens: int, *, compile_layers: bool) -> float:
        return 1000.0
