"""Replies as JSON bytes. Numbers of a vector are written by one format string, ten times as fast as by `json`."""

import asyncio
import base64
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ROWS_AT_ONCE = 64  # between two groups of rows the event loop may answer others


async def embedding_reply(
    vectors_ND: NDArray[np.float32], *, model: str, tokens: int, as_base64: bool, truncated: Sequence[int] | None
) -> bytes:
    """The body of `/v1/embeddings`.

    Args:
        vectors_ND: unit vectors in the order of the inputs.
        model: the model's name.
        tokens: number of tokens that the model has read.
        as_base64: little-endian float32 as base64, else numbers.
        truncated: indices of truncated texts; None: texts are never truncated.
    """
    groups = []
    for start in range(0, len(vectors_ND), _ROWS_AT_ONCE):
        rows_ND = vectors_ND[start : start + _ROWS_AT_ONCE]
        groups.append(_rows(rows_ND, start, as_base64))
        if start + _ROWS_AT_ONCE < len(vectors_ND):
            await asyncio.sleep(0)
    rest: dict[str, Any] = {"model": model, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
    if truncated is not None:
        rest["truncated"] = list(truncated)
    return f'{{"object":"list","data":[{",".join(groups)}],{json.dumps(rest)[1:]}'.encode()


def _rows(vectors_ND: NDArray[np.float32], first: int, as_base64: bool) -> str:
    # 9 digits are enough to read a float32 back exactly.
    form = "[" + ",".join(["%.9g"] * vectors_ND.shape[1]) + "]"
    rows = []
    for index, vector_D in enumerate(vectors_ND, first):
        if as_base64:
            value = f'"{base64.b64encode(vector_D.astype("<f4").tobytes()).decode()}"'
        else:
            value = form % tuple(vector_D.tolist())
        rows.append(f'{{"object":"embedding","index":{index},"embedding":{value}}}')
    return ",".join(rows)
