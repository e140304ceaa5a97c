"""The common output of all sources: records with their position in a file, so that errors can name it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from gemma4vec.data.rows.jsonl import explain_not_utf8, raw_lines, read_lines


class RejectError(Exception):
    """A field that makes its row unusable, and the reason; `data.rows.rows.parse_rows` adds the row's position."""


class Record(NamedTuple):
    """One record of a file.

    Attributes:
        file: path of the file, or another name for the place that was read.
        number: position in the file, from 1.
        value: fields named as in a row (`query`, `pos`, `neg`, `task`, `group`, `scores`), or `text`; None for a bad
            record.
        reason: why there is no value.
        field: the faulty field, if known.
        unit: what `number` counts, such as "line" or "row".
        unread: names of columns that the row has and that nothing reads.
    """

    file: str
    number: int
    value: dict[str, Any] | None
    reason: str = ""
    field: str = ""
    unit: str = "line"
    unread: tuple[str, ...] = ()


def jsonl_records(path: Path) -> Iterator[Record]:
    """The lines of a JSONL file (.gz and .zst by suffix).

    Raises:
        InputError: as `data.rows.jsonl.read_lines`.
    """
    for number, value, reason in read_lines(path):
        yield Record(str(path), number, value, reason)


def text_records(path: Path) -> Iterator[Record]:
    """The lines of a text file (.gz and .zst by suffix) without blank lines.

    Raises:
        InputError: as `data.rows.jsonl.raw_lines`.
    """
    for number, raw in raw_lines(path):
        yield text_record(path, number, raw)


def text_record(path: Path, number: int, raw: bytes) -> Record:
    """One line of a text file."""
    try:
        text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        return Record(str(path), number, None, explain_not_utf8(error, raw))
    if number == 1 and 3 * text.count("\0") > len(text):
        return Record(str(path), number, None, "is mostly NUL characters (is it UTF-16?); save the file as UTF-8")
    return Record(str(path), number, {"text": text.rstrip("\r\n")})
