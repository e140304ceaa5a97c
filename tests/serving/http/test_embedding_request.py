"""Bodies of requests: what is accepted, and what each refusal names."""

import json
from typing import Any

import pytest

from gemma4vec.serving.http.api_errors import ApiError
from gemma4vec.serving.http.embedding_request import (
    Offer,
    read_embedding_request,
    read_search_request,
    read_timeout_ms,
)

OFFER = Offer(("m",), (4, 8), None)


def read(offer: Offer = OFFER, **fields: Any) -> Any:
    return read_embedding_request(json.dumps({"input_type": "query", **fields}).encode(), offer)


def test_every_form_of_input() -> None:
    assert read(input="a").texts == ["a"]
    assert read(input=["a", " "]).texts == ["a", " "]
    body = json.dumps({"input": [1, 2]}).encode()
    assert read_embedding_request(body, OFFER).ids == [[1, 2]]
    body = json.dumps({"input": [[1, 2], [3]]}).encode()
    found = read_embedding_request(body, OFFER)
    assert (found.ids, found.texts, found.input_type) == ([[1, 2], [3]], [], None)


def test_the_other_fields() -> None:
    found = read(
        input=["a", "b"],
        input_type="document",
        title=["t", None],
        model="m",
        encoding_format="base64",
        dimensions=4,
        user="u",
    )
    assert (found.titles, found.base64, found.dimension, found.input_type) == (["t", None], True, 4, "document")
    assert read(input=["a", "b"], input_type="document", title="t").titles == ["t", "t"]
    assert read(input="a", dimensions=None, encoding_format=None).dimension is None


def test_a_default_role_is_used_where_none_is_named() -> None:
    offer = Offer(("m",), (8,), "document")
    assert read_embedding_request(b'{"input": "a"}', offer).input_type == "document"
    assert read_embedding_request(b'{"input": "a", "input_type": "query"}', offer).input_type == "query"
    assert read_embedding_request(b'{"input": [1]}', offer).input_type is None


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"input": ""}, "input[0]", "empty"),
        ({"input": ["a", ""]}, "input[1]", "empty"),
        ({"input": [""] * 100_000}, "input", "100000 items; at most 2048"),
        ({"input": []}, "input", "input is"),
        ({"input": None}, "input", "input is"),
        ({}, "input", "input is"),
        ({"input": {"a": 1}}, "input", "input is"),
        ({"input": ["a", 1]}, "input", "mixes"),
        ({"input": [1, True]}, "input", "mixes"),
        ({"input": [1.5]}, "input", "mixes"),
        ({"input": [[1], "a"]}, "input", "mixes"),
        ({"input": [[1], []]}, "input[1]", "empty"),
        ({"input": [[1, "a"]]}, "input", "mixes"),
        ({"input": [1, 2]}, "input_type", "leave input_type out"),
        ({"input": "a", "input_type": None}, "input_type", "missing"),
        ({"input": "a", "input_type": "passage"}, "input_type", "query or document"),
        ({"input": "a", "input_type": ["query"]}, "input_type", "query or document"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format", "float or base64"),
        ({"input": "a", "dimensions": 5}, "dimensions", "4, 8"),
        ({"input": "a", "dimensions": True}, "dimensions", "4, 8"),
        ({"input": "a", "dimensions": 4.0}, "dimensions", "4, 8"),
        ({"input": "a", "title": "t"}, "title", "document"),
        ({"input": "a", "input_type": "document", "title": ["t", "u"]}, "title", "2 items, input has 1"),
        ({"input": "a", "input_type": "document", "title": [1]}, "title", "null"),
        ({"input": "a", "user": 1}, "user", "text"),
        ({"input": "a", "model": 1}, "model", "text"),
        ({"input": "a", "input_typ": "query"}, None, "input_typ is not known"),
    ],
)
def test_a_refusal_names_the_field(fields: dict[str, Any], param: str | None, words: str) -> None:
    with pytest.raises(ApiError) as found:
        read(**fields)
    assert found.value.status == 400 and found.value.param == param and words in found.value.message
    assert len(found.value.message) < 300


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b'{"input": "\xff"}',
        b'{"input": "\\ud800", "input_type": "query"}',
        b'{"input": NaN}',
        b'{"input": [1e999]}',
        b'{"input": "a", "input": "b"}',
        b"[" * 100_000,
        b'{"input": ' + b"[" * 99_000 + b"]" * 99_000 + b"}",
        b'{"input": [' + b"9" * 5000 + b"]}",
        '{"input": "a"}'.encode("utf-16"),
    ],
)
def test_odd_bodies_are_refused_in_one_line(body: bytes) -> None:
    with pytest.raises(ApiError) as found:
        read_embedding_request(body, OFFER)
    assert (found.value.status, found.value.code) == (400, "invalid_json")
    assert "\n" not in found.value.message and len(found.value.message) < 300


def test_another_model_is_not_answered_by_this_one() -> None:
    with pytest.raises(ApiError) as found:
        read(input="a", model="text-embedding-3-small")
    assert (found.value.status, found.value.code) == (404, "model_not_found") and "m" in found.value.message


@pytest.mark.parametrize("fields", [{"query": ""}, {"query": []}, {"query": ["a", 1]}, {"query": "a", "k": 0}, {}])
def test_bad_searches(fields: dict[str, Any]) -> None:
    with pytest.raises(ApiError):
        read_search_request(json.dumps(fields).encode(), ["m"])


def test_a_search() -> None:
    found = read_search_request(b'{"query": ["a", "b"], "k": 3, "model": "m"}', ["m"])
    assert (found.queries, found.k) == (["a", "b"], 3)
    assert read_search_request(b'{"query": "a"}', ["m"]).queries == ["a"]


@pytest.mark.parametrize("header", ["", "0", "-1", "1.5", "x", "\u00b2", "9" * 30, "600001"])
def test_a_time_limit_is_a_number_in_range(header: str) -> None:
    with pytest.raises(ApiError):
        read_timeout_ms(header)
    assert (read_timeout_ms(None), read_timeout_ms("250")) == (30_000, 250)
