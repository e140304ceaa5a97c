"""The rows of a corpus for a store: texts of a file or a BEIR folder, with scalar fields for filters.

A field is read from the record itself, or from its `metadata`, as BEIR's corpora have it.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gemma4vec.errors import InputError
from gemma4vec.files import sha256_text
from gemma4vec.serving.encode.input_files import InputFiles, open_input
from gemma4vec.serving.encode.input_rows import BadRow, Fields, read_rows
from gemma4vec.serving.store.filters import LARGEST_INT, FieldType, Value
from gemma4vec.serving.store.rows import ARROW_TYPES, LONGEST_ID, Row, check_fields, storable
from gemma4vec.text.prompts import Document

logger = logging.getLogger(__name__)

QUERIES = "queries.jsonl"


@dataclass
class CorpusRows:
    """Rows of an input, read again at each iteration.

    Attributes:
        files: the input.
        fields: type of each scalar field.
        rejected: number of rows that the last iteration could not read.
    """

    files: InputFiles
    fields: Mapping[str, FieldType]
    rejected: int = field(default=0, init=False)

    def __iter__(self) -> Iterator[tuple[Row, Document]]:
        """Yield each row and its text for the embedder; a row that cannot be read is counted and named once.

        Raises:
            InputError: a field has another type than was named.
        """
        self.rejected = 0
        for number, (_, record) in enumerate(self.files.records(), 1):
            for row in read_rows([(number, record)], self.files.fields, titles=True):
                if isinstance(row, BadRow) or len(row.id.encode()) > LONGEST_ID:
                    reason = row.reason if isinstance(row, BadRow) else "field 'id' is too long"
                    if not self.rejected:
                        logger.warning(f"left out: {row.place}: {reason}")
                    self.rejected += 1
                    continue
                values = self._values(record.value or {}, row.place)
                title, text = row.document.title, row.document.text
                known = sha256_text(title or "", text, repr(sorted(values.items())))[:16]
                yield Row(row.id, title, storable(text), known, values), row.document

    def _values(self, record: Mapping[str, Any], place: str) -> dict[str, Value | None]:
        metadata = record.get("metadata")
        inside = metadata if isinstance(metadata, dict) else {}
        values: dict[str, Value | None] = {}
        for name, kind in self.fields.items():
            value = record.get(name, inside.get(name))
            values[name] = None if value is None else _convert(value, kind, name, place)
        return values


def open_corpus(source: Path, fields: Mapping[str, FieldType], names: Fields) -> CorpusRows:
    """Open a JSONL, Parquet, CSV, TSV or text file, or a folder in BEIR's layout.

    Raises:
        InputError: nothing that can be read, or fields of a table, whose other columns are not read.
    """
    check_fields(fields)
    files = open_input(source, names)
    if fields and files.kind != "jsonl":
        raise InputError(f"{source}: --field reads JSONL, not {files.kind}; convert it, or leave the fields out")
    return CorpusRows(files, fields)


def parse_fields(texts: Sequence[str]) -> dict[str, FieldType]:
    """Parse `NAME:TYPE`.

    Raises:
        InputError: another form or type.
    """
    fields: dict[str, FieldType] = {}
    for text in texts:
        name, _, kind = text.partition(":")
        if kind not in ARROW_TYPES or not name or name in fields:
            raise InputError(f"--field {text[:60]!r}: write NAME:TYPE, once a name; types are {', '.join(ARROW_TYPES)}")
        fields[name] = kind
    check_fields(fields)
    return fields


def read_queries(path: Path, most: int) -> list[str]:
    """Return up to `most` query texts, spread over a file, or over the queries of a BEIR folder.

    Raises:
        InputError: no query can be read.
    """
    files = open_input(path, Fields(row_ids=True), queries=True)
    texts = []
    for number, (_, record) in enumerate(files.records(), 1):
        texts += [
            row.document.text
            for row in read_rows([(number, record)], files.fields, titles=False)
            if not isinstance(row, BadRow)
        ]
    if not texts:
        raise InputError(f"{path}: has no query; name another file, or leave --queries out")
    step = max(len(texts) / most, 1.0)
    return [texts[int(place * step)] for place in range(min(most, len(texts)))]


def _convert(value: Any, kind: FieldType, name: str, place: str) -> Value:
    if kind == "text" and isinstance(value, str):
        return storable(value)
    if kind == "bool" and isinstance(value, bool):
        return value
    if kind == "int" and isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST_INT:
        return value
    if kind == "float" and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    shown = repr(value)
    raise InputError(
        f"{place}: field {name!r} is {shown if len(shown) <= 40 else shown[:37] + '...'}, not {kind}; mend the row or "
        "name another type"
    )
