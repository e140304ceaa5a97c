"""The training row of a contrastive model, in memory and as JSON Lines.

One JSON object a line: `{"query", "pos": [...], "neg": [...]?, "task"?, "group"?, "scores"?}`. A text is a string,
`{"text", "title"?}`, or `{"input_ids"}` if it is tokenized. `data.rows.scores` describes `scores`. Unknown keys are
ignored but counted, so that a misspelled `negs` is reported.
"""

import hashlib
import re
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from gemma4vec.data.rows.jsonl import json_type, write_lines
from gemma4vec.data.rows.records import Record, RejectError, jsonl_records
from gemma4vec.data.rows.scores import Scores, parse_scores
from gemma4vec.errors import InputError
from gemma4vec.text.pretokenized import PretokenizedText
from gemma4vec.text.prompts import Document
from gemma4vec.text.sanitize import sanitize

OVERLONG = 50_000
# C0 controls except tab and newline (a lone carriage return too), DEL, and lone surrogates from "\ud800" escapes.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
KEYS = ("query", "pos", "neg", "task", "group", "scores")
NOTES = ("mined",)  # written by mining; ignored without a report


@dataclass(frozen=True)
class Row:
    """One training row.

    Attributes:
        query: the query.
        pos: documents that answer it.
        neg: hard negatives: documents that look relevant but do not answer it.
        task: name of its task.
        group: what the row is about (a package, a topic); rows of one group are hard negatives for each other.
        scores: a teacher's scores, one for each positive and negative.
    """

    query: str
    pos: list[Document]
    neg: list[Document] = field(default_factory=list)
    task: str | None = None
    group: str | None = None
    scores: Scores | None = None


class BadRow(NamedTuple):
    """A row that cannot be used: its position (line from 1, or what `unit` counts) and the reason."""

    file: str
    line: int
    field: str
    reason: str
    unit: str = "line"

    def __str__(self) -> str:
        return f"{self.file} {self.unit} {self.line}{f', field {self.field!r}' if self.field else ''}: {self.reason}"


@dataclass
class RowsRead:
    """The rows of a file, and what was wrong with others.

    Attributes:
        rows: good rows.
        bad: bad rows.
        counts: number of texts that were `empty`, `overlong` (above 50,000 characters; not cut) or had `control`
            characters (replaced by spaces).
        unknown_keys: number of occurrences of each unknown key, or column that is not read.
    """

    rows: list[Row] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=lambda: Counter(empty=0, overlong=0, control=0))
    unknown_keys: Counter[str] = field(default_factory=Counter)


def clean_text(text: str, counts: Counter[str]) -> str:
    """The text with control characters and lone surrogates replaced by spaces; updates `counts` (`RowsRead`)."""
    text = text.replace("\r\n", "\n")
    cleaned = CONTROL.sub(" ", text)
    counts["control"] += cleaned != text
    counts["overlong"] += len(cleaned) > OVERLONG
    counts["empty"] += not cleaned.strip()
    return cleaned


def clean_title(title: str | None) -> str | None:
    """The title without control characters and outer white space; None if nothing is left."""
    return CONTROL.sub(" ", title).strip() or None if title else None


def read_rows(path: Path, max_bad_share: float = 0.0) -> RowsRead:
    """Read and validate a JSONL file of rows (.gz and .zst by suffix).

    Args:
        path: the file.
        max_bad_share: largest share of bad rows, 0 to 1.

    Raises:
        InputError: the file cannot be read, is empty, or has too many bad rows; names the first one.
    """
    path = Path(path)
    read = RowsRead()
    read.rows.extend(parse_rows(jsonl_records(path), read))
    check_bad_share(read, len(read.rows), max_bad_share, str(path))
    return read


def parse_rows(records: Iterable[Record], read: RowsRead, *, plain: bool = False) -> Iterator[Row]:
    """The good rows of records, one by one; `read` collects bad rows and counts.

    With `plain`, a record is one text and its row has no positive; blank texts are skipped.
    """
    for record in records:
        read.unknown_keys.update(record.unread)
        try:
            if record.value is None:
                raise RejectError(record.field, record.reason)
            row = _plain(record.value, read) if plain else _row(record.value, read)
        except RejectError as reject:
            name, reason = reject.args
            read.bad.append(BadRow(record.file, record.number, sanitize(name), sanitize(reason), record.unit))
            continue
        if row is not None:
            yield row


def check_bad_share(read: RowsRead, good: int, max_bad_share: float, where: str, what: str = "rows") -> None:
    """Check that data has rows and not too many bad ones.

    Raises:
        InputError: names the first bad row.
    """
    total = good + len(read.bad)
    if total == 0:
        raise InputError(f"{where}: the file is empty; it must have at least one of its {what}")
    if len(read.bad) > max_bad_share * total or not good:
        raise InputError(
            f"{read.bad[0]} ({len(read.bad)} of {total} {what} are bad, {format_share(max_bad_share)} are allowed); "
            f"mend the {what} or allow a larger share (max_bad_share)"
        )


def format_share(share: float) -> str:
    """A share as a percentage, with enough digits for small ones."""
    return f"{100 * share:.4g}%"


def _plain(value: dict[str, Any], read: RowsRead) -> Row | None:
    text = value.get("text")
    if isinstance(text, PretokenizedText):
        return Row(text, [])
    if isinstance(text, dict) and "input_ids" in text:
        return Row(pretokenized_text("text", text["input_ids"]), [])
    if not isinstance(text, str):
        raise RejectError("text", f"expected a string, not {json_type(text)}")
    cleaned = clean_text(text, read.counts)
    return Row(cleaned, []) if cleaned.strip() else None


def _row(value: dict[str, Any], read: RowsRead) -> Row:
    read.unknown_keys.update(sanitize(key) for key in value if key not in KEYS + NOTES)
    if "query" not in value or "pos" not in value:
        missing = "query" if "query" not in value else "pos"
        raise RejectError(missing, f"is missing; the row has {', '.join(map(repr, sorted(value))) or 'no keys'}")
    query = _query(value["query"], read.counts)
    pos = _texts("pos", value["pos"], read.counts)
    if not pos:
        raise RejectError("pos", "is empty; a row needs at least one positive")
    if any(not document.text.strip() for document in pos):
        raise RejectError("pos", "has an empty text")
    negatives = _texts("neg", value.get("neg") or [], read.counts)
    blank = [place for place, document in enumerate(negatives) if not document.text.strip()]
    neg = [document for document in negatives if document.text.strip()]
    for name in ("task", "group"):
        if not isinstance(value.get(name), str | None):
            raise RejectError(name, f"expected a string, not {json_type(value[name])}")
    scores = parse_scores(value.get("scores"), len(pos), len(negatives))
    scores = scores.without(blank) if scores is not None and blank else scores
    return Row(query, pos, neg, _name(value.get("task")), _name(value.get("group")), scores)


def _name(name: str | None) -> str | None:
    return None if name is None else CONTROL.sub(" ", name)


def _query(value: Any, counts: Counter[str]) -> str:
    if isinstance(value, dict) and "input_ids" in value:
        return pretokenized_text("query", value["input_ids"])
    if not isinstance(value, str):
        raise RejectError("query", f"expected a string, not {json_type(value)}")
    query = clean_text(value, counts)
    if not query.strip():
        raise RejectError("query", "is empty")
    return query


def pretokenized_text(name: str, ids: Any) -> PretokenizedText:
    """Token ids of field `name` as a text.

    Raises:
        RejectError: not a list of token ids.
    """
    if not isinstance(ids, list) or not ids:
        raise RejectError(
            f"{name}.input_ids",
            "expected a list of token ids, at least one of them unmasked, and a mask of equal length",
        )
    wrong = next((one for one in ids if type(one) is not int or not 0 <= one < 2**31), None)
    if wrong is not None:
        raise RejectError(f"{name}.input_ids", f"{wrong!r} is not a token id; token ids are integers from 0")
    return PretokenizedText(ids)


def _texts(name: str, value: Any, counts: Counter[str]) -> list[Document]:
    if not isinstance(value, list):
        raise RejectError(name, f"expected a list of texts, not {json_type(value)}")
    return [_text(f"{name}[{place}]", item, counts) for place, item in enumerate(value)]


def _text(name: str, value: Any, counts: Counter[str]) -> Document:
    if isinstance(value, str):
        return Document(clean_text(value, counts))
    if isinstance(value, dict) and "input_ids" in value:
        return Document(pretokenized_text(name, value["input_ids"]))
    if not isinstance(value, dict) or "text" not in value:
        raise RejectError(name, f'expected a string or {{"text", "title"?}}, not {json_type(value)}')
    text, title = value["text"], value.get("title")
    if not isinstance(text, str) or not isinstance(title, str | None):
        wrong = "text" if not isinstance(text, str) else "title"
        raise RejectError(f"{name}.{wrong}", f"expected a string, not {json_type(value[wrong])}")
    return Document(clean_text(text, counts), clean_title(title))


def write_rows(path: Path, rows: Iterable[Row], level: int = 6) -> None:
    """Write rows as JSONL, atomically; gzipped at `level` if the name ends in .gz.

    Raises:
        WorkError: the disk is full or the folder cannot be written.
    """
    write_lines(Path(path), (as_object(row) for row in rows), level)


def as_object(row: Row) -> dict[str, Any]:
    """The row as its JSON object."""
    made: dict[str, Any] = {
        "query": _as_value(Document(row.query)),
        "pos": [_as_value(document) for document in row.pos],
    }
    if row.neg:
        made["neg"] = [_as_value(document) for document in row.neg]
    if row.task is not None:
        made["task"] = row.task
    if row.group is not None:
        made["group"] = row.group
    if row.scores is not None:
        made["scores"] = row.scores.as_object()
    return made


def _as_value(document: Document) -> str | dict[str, Any]:
    if isinstance(document.text, PretokenizedText):
        return {"input_ids": list(map(int, document.text.ids))}
    return document.text if not document.title else {"text": document.text, "title": document.title}


def content_hash(rows: Iterable[Row]) -> str:
    """Hexadecimal SHA-256 of the rows' contents in order; sensitive to the boundaries between texts and fields."""
    hashing = ContentHash()
    for row in rows:
        hashing.add(row)
    return hashing.hexdigest()


class ContentHash:
    """Incremental `content_hash`."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, row: Row) -> None:
        """Add one row."""
        self._digest.update(len(row.pos).to_bytes(8, "little") + len(row.neg).to_bytes(8, "little"))
        self._text(row.query)
        self._text(row.task)
        self._text(row.group)
        for document in (*row.pos, *row.neg):
            self._text(document.text)
            self._text(document.title)
        if row.scores is not None:
            values = (*row.scores.pos, *row.scores.neg)
            self._digest.update(b"scores" + struct.pack(f"<{len(values)}d", *values))
            self._text(row.scores.teacher)

    def hexdigest(self) -> str:
        """The hash of all rows added."""
        return self._digest.hexdigest()

    def _text(self, text: str | None) -> None:
        encoded = b"" if text is None else text.encode("utf-8", errors="surrogatepass")
        self._digest.update((-1 if text is None else len(encoded)).to_bytes(8, "little", signed=True) + encoded)
