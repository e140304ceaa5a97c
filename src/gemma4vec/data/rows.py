"""Rows: what a contrastive model is trained on, on disk and in memory.

On disk one JSON object a line: `{"query", "pos": [...], "neg": [...]?, "task"?, "group"?}`; a text is a string or
`{"text", "title"?}`. Other keys are kept out and counted, so that a misspelt `negs` does not vanish silently.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from gemma4vec.data.jsonl import Line, kind_of, read_lines, write_lines
from gemma4vec.errors import InputError
from gemma4vec.model.prompts import Document

OVERLONG = 50_000
# C0 controls except tab and newline (a lone carriage return too), DEL, and lone surrogates from "\ud800" escapes.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
KEYS = ("query", "pos", "neg", "task", "group")


@dataclass(frozen=True)
class Row:
    """A query, the documents that answer it, documents that look as if they did, and the name of its task.

    `group` names what the row is about (a package, a topic): rows of one group make hard negatives for each other.
    """

    query: str
    pos: list[Document]
    neg: list[Document] = field(default_factory=list)
    task: str | None = None
    group: str | None = None


class BadRow(NamedTuple):
    """A row that cannot be used: where it stands (line from 1) and why."""

    file: str
    line: int
    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file} line {self.line}{f', field {self.field!r}' if self.field else ''}: {self.reason}"


@dataclass
class RowsRead:
    """What a file gave.

    `counts`: texts that were `empty`, `overlong` (above 50,000 characters; kept whole) or had `control` characters
    (replaced by spaces). `unknown_keys`: how often each key occurred that a row does not have.
    """

    rows: list[Row] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=lambda: Counter(empty=0, overlong=0, control=0))
    unknown_keys: Counter[str] = field(default_factory=Counter)


class _RejectError(Exception):
    """A field that makes its row unusable; never leaves this module."""


def clean_text(text: str, counts: Counter[str]) -> str:
    """The text with control characters and lone surrogates as spaces; counts what is unusual about it."""
    text = text.replace("\r\n", "\n")
    cleaned = CONTROL.sub(" ", text)
    counts["control"] += cleaned != text
    counts["overlong"] += len(cleaned) > OVERLONG
    counts["empty"] += not cleaned.strip()
    return cleaned


def clean_title(title: str | None) -> str | None:
    """The title without control characters and outer blanks; None where nothing is left."""
    return CONTROL.sub(" ", title).strip() or None if title else None


def read_rows(path: Path, max_bad_share: float = 0.0) -> RowsRead:
    """Read and validate a JSONL file of rows (.gz, and .zst where a Zstandard library is installed).

    Args:
        path: the file.
        max_bad_share: the share of rows, 0 to 1, that may be bad before reading fails.

    Raises:
        InputError: the file cannot be read, has no row, or more bad rows than allowed (names the first).
    """
    path = Path(path)
    read = RowsRead()
    for line in read_lines(path):
        try:
            read.rows.append(_row(line, read))
        except _RejectError as reject:
            name, reason = reject.args
            read.bad.append(BadRow(str(path), line.number, name, reason))
    total = len(read.rows) + len(read.bad)
    if total == 0:
        raise InputError(f"{path}: the file is empty; one JSON object a line is needed")
    if len(read.bad) > max_bad_share * total or not read.rows:
        raise InputError(
            f"{read.bad[0]} ({len(read.bad)} of {total} rows are bad, {max_bad_share:.1%} are allowed); "
            "mend the rows or allow a larger share"
        )
    return read


def _row(line: Line, read: RowsRead) -> Row:
    if line.value is None:
        raise _RejectError("", line.reason)
    value = line.value
    read.unknown_keys.update(key for key in value if key not in KEYS)
    if "query" not in value or "pos" not in value:
        missing = "query" if "query" not in value else "pos"
        raise _RejectError(missing, f"is missing; the row has {', '.join(map(repr, sorted(value))) or 'no keys'}")
    query = value["query"]
    if not isinstance(query, str):
        raise _RejectError("query", f"a string is needed, not {kind_of(query)}")
    query = clean_text(query, read.counts)
    if not query.strip():
        raise _RejectError("query", "is empty")
    pos = _texts("pos", value["pos"], read.counts)
    if not pos:
        raise _RejectError("pos", "is empty; at least one positive text is needed")
    if any(not document.text.strip() for document in pos):
        raise _RejectError("pos", "has an empty text")
    neg = [document for document in _texts("neg", value.get("neg") or [], read.counts) if document.text.strip()]
    for name in ("task", "group"):
        if not isinstance(value.get(name), str | None):
            raise _RejectError(name, f"a string is needed, not {kind_of(value[name])}")
    return Row(query, pos, neg, value.get("task"), value.get("group"))


def _texts(name: str, value: Any, counts: Counter[str]) -> list[Document]:
    if not isinstance(value, list):
        raise _RejectError(name, f"a list of texts is needed, not {kind_of(value)}")
    return [_text(f"{name}[{place}]", item, counts) for place, item in enumerate(value)]


def _text(name: str, value: Any, counts: Counter[str]) -> Document:
    if isinstance(value, str):
        return Document(clean_text(value, counts))
    if not isinstance(value, dict) or "text" not in value:
        raise _RejectError(name, f'a string or {{"text", "title"?}} is needed, not {kind_of(value)}')
    text, title = value["text"], value.get("title")
    if not isinstance(text, str) or not isinstance(title, str | None):
        wrong = "text" if not isinstance(text, str) else "title"
        raise _RejectError(f"{name}.{wrong}", f"a string is needed, not {kind_of(value[wrong])}")
    return Document(clean_text(text, counts), clean_title(title))


def write_rows(path: Path, rows: Iterable[Row], level: int = 6) -> None:
    """Write rows as JSONL, atomically, gzipped (at this level) where the name ends in .gz.

    Raises:
        WorkError: the disk is full or the folder cannot be written.
    """
    write_lines(Path(path), (_as_object(row) for row in rows), level)


def _as_object(row: Row) -> dict[str, Any]:
    made: dict[str, Any] = {"query": row.query, "pos": [_as_value(document) for document in row.pos]}
    if row.neg:
        made["neg"] = [_as_value(document) for document in row.neg]
    if row.task is not None:
        made["task"] = row.task
    if row.group is not None:
        made["group"] = row.group
    return made


def _as_value(document: Document) -> str | dict[str, str]:
    return document.text if not document.title else {"text": document.text, "title": document.title}


def content_hash(rows: Sequence[Row]) -> str:
    """Hexadecimal SHA-256 of the rows' contents in their order; the boundaries between texts and fields count."""
    digest = hashlib.sha256()

    def add(text: str | None) -> None:
        encoded = b"" if text is None else text.encode("utf-8", errors="surrogatepass")
        digest.update((-1 if text is None else len(encoded)).to_bytes(8, "little", signed=True) + encoded)

    for row in rows:
        digest.update(len(row.pos).to_bytes(8, "little") + len(row.neg).to_bytes(8, "little"))
        add(row.query)
        add(row.task)
        add(row.group)
        for document in (*row.pos, *row.neg):
            add(document.text)
            add(document.title)
    return digest.hexdigest()
