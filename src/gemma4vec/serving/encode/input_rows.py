"""From a raw record of the input to a text that can be encoded, or the reason why it is rejected.

A row is rejected if it has no id or no text, if a field has another type, if its id cannot be stored, or if its id is
that of an earlier row of the same shard.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from gemma4vec.data.rows.jsonl import json_type
from gemma4vec.data.rows.judgments import is_usable_id
from gemma4vec.data.rows.records import Record, RejectError
from gemma4vec.data.rows.rows import clean_text, clean_title
from gemma4vec.text.prompts import Document
from gemma4vec.text.sanitize import sanitize

IDS = ("id", "_id")
TEXT, TITLE = "text", "title"
LONGEST_SHOWN = 80  # characters of an id in a message


@dataclass(frozen=True)
class Fields:
    """The names of the input's fields.

    Attributes:
        id: the row's id; None: `id`, else `_id`.
        text: the text.
        title: the title; a row without it has none.
        row_ids: the id is the row's number, from 1.
    """

    id: str | None = None
    text: str = TEXT
    title: str = TITLE
    row_ids: bool = False

    def id_of(self, names: Iterable[str]) -> str | None:
        """The field of the id among `names`; None: it is not there."""
        known = set(names)
        return next((name for name in ((self.id,) if self.id else IDS) if name in known), None)


class GoodRow(NamedTuple):
    """A row to encode: its place in the input, and what is stored and read."""

    place: str
    id: str
    document: Document


class BadRow(NamedTuple):
    """A row that is not encoded; `id` is None where it cannot be read."""

    place: str
    id: str | None
    reason: str

    def as_json(self) -> dict[str, Any]:
        """Its line in the file of rejected rows."""
        return self._asdict()


def read_rows(records: Iterable[tuple[int, Record]], fields: Fields, *, titles: bool) -> Iterator[GoodRow | BadRow]:
    """The rows of one shard, in their order.

    Args:
        records: the row's number in the whole input, from 1, and its record.
        fields: the names of the fields.
        titles: read titles, which documents have and queries do not.
    """
    seen: set[str] = set()
    for number, record in records:
        place = f"{Path(record.file).name} {record.unit} {record.number}"
        key = None
        try:
            if record.value is None:
                raise RejectError(record.field, record.reason)
            key = _id(record.value, fields, number)
            document = _document(record.value, fields, titles)
            if key in seen:
                raise RejectError("id", "is that of an earlier row of this shard")
        except RejectError as reject:
            name, reason = reject.args
            shown = None if key is None else sanitize(key)[:LONGEST_SHOWN]
            yield BadRow(place, shown, sanitize(f"field {name!r} {reason}" if name else reason))
            continue
        seen.add(key)
        yield GoodRow(place, key, document)


def _id(value: Mapping[str, Any], fields: Fields, number: int) -> str:
    if fields.row_ids:
        return str(number)
    name = fields.id_of(value)
    if name is None:
        raise RejectError(fields.id or IDS[0], "is missing; each row needs an id")
    found = value[name]
    if type(found) is int:
        return str(found)
    if not isinstance(found, str):
        raise RejectError(name, f"must be a string or a whole number, not {json_type(found)}")
    if not found:
        raise RejectError(name, "is empty; each row needs an id")
    if not is_usable_id(found):
        raise RejectError(name, "has a lone surrogate or a NUL character")
    return found


def _document(value: Mapping[str, Any], fields: Fields, titles: bool) -> Document:
    text, title = value.get(fields.text), value.get(fields.title) if titles else None
    if text is None and fields.text not in value:
        raise RejectError(fields.text, "is missing")
    if not isinstance(text, str):
        raise RejectError(fields.text, f"must be a string, not {json_type(text)}")
    if not isinstance(title, str | None):
        raise RejectError(fields.title, f"must be a string, not {json_type(title)}")
    document = Document(clean_text(text, Counter()), clean_title(title))
    if not document.text.strip() and not document.title:
        raise RejectError(fields.text, "is empty")
    return document
