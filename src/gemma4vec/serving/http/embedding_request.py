"""Requests of `/v1/embeddings` and `/v1/search`, from JSON to checked values.

The body is OpenAI's, with `input_type` and `title` added. Unknown fields are refused: a misspelled `input_type` would
be a wrong prompt, which gives worse vectors and no error.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gemma4vec.errors import InputError
from gemma4vec.reading.json_values import JsonError, loads_json
from gemma4vec.serving.http.api_errors import ApiError, bad_request
from gemma4vec.serving.http.server_settings import (
    DEFAULT_TIMEOUT_MS,
    LONGEST_TIMEOUT_MS,
    MOST_HITS,
    MOST_INPUTS,
    InputType,
)
from gemma4vec.serving.store.filters import Filter, parse_filter

_EMBEDDING_FIELDS = ("input", "model", "encoding_format", "dimensions", "user", "input_type", "title")
_SEARCH_FIELDS = ("query", "k", "filter", "model")


@dataclass(frozen=True)
class EmbeddingRequest:
    """A checked request.

    Attributes:
        texts: the inputs, if they are texts; else empty.
        ids: the inputs, if they are token ids; else empty.
        input_type: the role of texts; None for token ids, which carry their prompt themselves.
        titles: a title or None for each text.
        base64: whether vectors are sent as base64 of little-endian float32.
        dimension: number of leading dimensions; None: all.
    """

    texts: list[str]
    ids: list[list[int]]
    input_type: InputType | None
    titles: list[str | None]
    base64: bool
    dimension: int | None


@dataclass(frozen=True)
class SearchRequest:
    """Queries, the number of hits of each, and a filter of documents."""

    queries: list[str]
    k: int
    where: Filter | None = None


@dataclass(frozen=True)
class Offer:
    """What a server accepts: its model's names, lengths of vectors, and the role of texts whose request names none."""

    names: tuple[str, ...]
    dimensions: tuple[int, ...]
    default_input_type: InputType | None


def read_embedding_request(body: bytes, offer: Offer) -> EmbeddingRequest:
    """Read the body of `/v1/embeddings`.

    Raises:
        ApiError: 400, or 404 for another model; the message names the field.
    """
    given = _read_object(body, _EMBEDDING_FIELDS)
    _check_model(given, offer.names)
    texts, ids = _read_input(given)
    encoding = given.get("encoding_format")
    if encoding not in (None, "float", "base64"):
        raise bad_request("encoding_format is float or base64", "encoding_format")
    input_type = _input_type(given, offer.default_input_type, needed=bool(texts))
    return EmbeddingRequest(
        texts,
        ids,
        input_type if texts else None,
        _titles(given, len(texts), input_type),
        encoding == "base64",
        _dimension(given, offer.dimensions),
    )


def read_search_request(body: bytes, names: Sequence[str]) -> SearchRequest:
    """Read the body of `/v1/search`.

    Raises:
        ApiError: 400, or 404 for another model; the message names the field.
    """
    given = _read_object(body, _SEARCH_FIELDS)
    _check_model(given, names)
    queries = given.get("query")
    queries = [queries] if isinstance(queries, str) else queries
    if not isinstance(queries, list) or not queries or not all(isinstance(query, str) for query in queries):
        raise bad_request("query is a text or a list of texts", "query")
    _check_count(queries, "query")
    _check_not_empty(queries, "query")
    k = given.get("k", 10)
    if not _is_integer(k) or not 1 <= k <= MOST_HITS:
        raise bad_request(f"k is a whole number from 1 to {MOST_HITS}", "k")
    text = given.get("filter")
    if text is not None and not isinstance(text, str):
        raise bad_request("filter is a text, such as: year >= 2020", "filter")
    try:
        where = None if text is None else parse_filter(text)
    except InputError as error:
        raise bad_request(str(error), "filter") from None
    return SearchRequest(queries, k, where)


def read_timeout_ms(header: str | None) -> int:
    """Milliseconds of the header `X-Timeout-Ms`.

    Raises:
        ApiError: 400, no whole number in range.
    """
    if header is None:
        return DEFAULT_TIMEOUT_MS
    if header.isascii() and header.isdigit() and len(header) <= 9 and 1 <= int(header) <= LONGEST_TIMEOUT_MS:
        return int(header)
    raise bad_request(f"X-Timeout-Ms is a whole number from 1 to {LONGEST_TIMEOUT_MS}", "X-Timeout-Ms")


def _read_object(body: bytes, fields: Sequence[str]) -> dict[str, Any]:
    try:
        given = loads_json(body)
    except JsonError as error:
        place = f" (line {error.line})" if error.line is not None else ""
        raise bad_request(f"the body is no valid JSON{place}: {error.reason[:200]}", code="invalid_json") from None
    if not isinstance(given, dict):
        raise bad_request("the body is a JSON object", code="invalid_json")
    unknown = [name for name in given if name not in fields]
    if unknown:
        named = unknown[0] if len(unknown[0]) <= 40 and unknown[0].isidentifier() else "a field"
        raise bad_request(f"{named} is not known here; the fields are {', '.join(fields)}", code="unknown_parameter")
    return given


def _check_model(given: Mapping[str, Any], names: Sequence[str]) -> None:
    name = given.get("model")
    if name is not None and not isinstance(name, str):
        raise bad_request("model is a text", "model")
    if name is not None and name not in names:
        raise ApiError(404, f"this server has the model {names[0]} alone", param="model", code="model_not_found")
    if "user" in given and not isinstance(given["user"], str):
        raise bad_request("user is a text", "user")


def _read_input(given: Mapping[str, Any]) -> tuple[list[str], list[list[int]]]:
    """Texts and lists of token ids; one of them is empty."""
    value = given.get("input")
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not value:
        raise bad_request("input is a text, a list of texts, a list of token ids or a list of such lists", "input")
    if all(_is_integer(one) for one in value):
        value = [value]
    _check_count(value, "input")
    if all(isinstance(one, str) for one in value):
        _check_not_empty(value, "input")
        return value, []
    if not all(isinstance(one, list) and all(_is_integer(token) for token in one) for one in value):
        raise bad_request("input mixes kinds: give texts alone, or lists of token ids alone", "input")
    _check_not_empty(value, "input")
    return [], value


def _check_count(values: Sequence[Any], name: str) -> None:
    if len(values) > MOST_INPUTS:
        raise bad_request(f"{name} has {len(values)} items; at most {MOST_INPUTS} are allowed", name, "too_many_inputs")


def _check_not_empty(values: Iterable[Sequence[Any]], name: str) -> None:
    for index, value in enumerate(values):
        if not value:
            raise bad_request(f"{name}[{index}] is empty", f"{name}[{index}]", "empty_input")


def _input_type(given: Mapping[str, Any], default: InputType | None, *, needed: bool) -> InputType | None:
    found: Literal["query", "document"] | None = given.get("input_type", default)
    if found is None and needed:
        raise bad_request(
            'input_type is missing; give "query" or "document", since each has its own prompt '
            "(or start the server with --default-input-type)",
            "input_type",
            "missing_input_type",
        )
    if found not in (None, "query", "document"):
        raise bad_request("input_type is query or document", "input_type")
    if not needed and "input_type" in given:
        raise bad_request("token ids carry their prompt themselves; leave input_type out", "input_type")
    return found


def _titles(given: Mapping[str, Any], count: int, input_type: InputType | None) -> list[str | None]:
    title = given.get("title")
    if title is None:
        return [None] * count
    if input_type != "document" or not count:
        raise bad_request("only texts of the input_type document have a title", "title")
    titles = [title] * count if isinstance(title, str) else title
    if not isinstance(titles, list) or not all(one is None or isinstance(one, str) for one in titles):
        raise bad_request("title is a text, or a list with a text or null for each input", "title")
    if len(titles) != count:
        raise bad_request(f"title has {len(titles)} items, input has {count}", "title")
    return titles


def _dimension(given: Mapping[str, Any], trained: Sequence[int]) -> int | None:
    dimension = given.get("dimensions")
    if dimension is None:
        return None
    if not _is_integer(dimension) or dimension not in trained:
        known = ", ".join(map(str, trained))
        raise bad_request(f"dimensions is one of the lengths that were trained: {known}", "dimensions")
    return int(dimension)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
