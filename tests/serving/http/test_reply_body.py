"""The body of an embedding reply: valid JSON whose numbers are the vectors' own."""

import asyncio
import base64
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from gemma4vec.serving.http.reply_body import embedding_reply

VECTORS = np.random.default_rng(0).normal(size=(130, 5)).astype(np.float32)  # more rows than are written at once
VECTORS[7] = [0.0, 1e-30, -1.0, 1 / 3, 3.4e38]


def reply(vectors: Any, as_base64: bool = False, truncated: Sequence[int] | None = None) -> Any:
    body = embedding_reply(vectors, model='a "b"', tokens=9, as_base64=as_base64, truncated=truncated)
    return json.loads(asyncio.run(body))


@pytest.mark.parametrize("as_base64", [False, True])
def test_vectors_are_read_back_bit_by_bit_in_their_order(as_base64: bool) -> None:
    rows = reply(VECTORS, as_base64)["data"]
    assert [row["index"] for row in rows] == list(range(130)) and {row["object"] for row in rows} == {"embedding"}
    found = [
        np.frombuffer(base64.b64decode(row["embedding"]), "<f4") if as_base64 else row["embedding"] for row in rows
    ]
    assert np.array_equal(np.array(found, dtype=np.float32), VECTORS)


def test_the_rest_of_the_reply() -> None:
    found = reply(VECTORS[:1], truncated=[0])
    assert found["object"] == "list" and found["model"] == 'a "b"' and found["truncated"] == [0]
    assert found["usage"] == {"prompt_tokens": 9, "total_tokens": 9}
    assert "truncated" not in reply(VECTORS[:1]) and reply(VECTORS[:0])["data"] == []
