"""Plain texts, one a line: what a model is adapted on before it learns from rows."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gemma4vec.data.jsonl import raw_lines
from gemma4vec.data.rows import BadRow, Row, clean_text
from gemma4vec.errors import InputError
from gemma4vec.model.prompts import Prompts


@dataclass
class TextsRead:
    """What a file gave; `counts` as in `data.rows.RowsRead`."""

    texts: list[str] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=lambda: Counter(empty=0, overlong=0, control=0))


def read_texts(path: Path, max_bad_share: float = 0.0) -> TextsRead:
    """Read a text file (.gz and .zst by suffix); blank lines are left out, lines that are not UTF-8 are bad.

    Raises:
        InputError: the file cannot be read, has no text, or more bad lines than allowed (names the first).
    """
    read = TextsRead()
    for number, raw in raw_lines(path):
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            read.bad.append(BadRow(str(path), number, "", f"not UTF-8 at byte {error.start}"))
            continue
        cleaned = clean_text(text.rstrip("\r\n"), read.counts)
        if cleaned.strip():
            read.texts.append(cleaned)
    total = len(read.texts) + len(read.bad)
    if len(read.bad) > max_bad_share * total:
        raise InputError(
            f"{read.bad[0]} ({len(read.bad)} of {total} lines are bad, {max_bad_share:.1%} are allowed); "
            "mend the lines or allow a larger share"
        )
    if not read.texts:
        raise InputError(f"{path}: the file has no text; one text a line is needed")
    return read


def texts_of_rows(rows: Iterable[Row], which: Literal["all", "queries", "documents"]) -> Iterator[str]:
    """The texts of rows, without prompts, titles in front of their documents; a text may come several times."""
    plain = Prompts()
    for row in rows:
        if which != "documents":
            yield row.query
        if which != "queries":
            for document in (*row.pos, *row.neg):
                yield plain.for_document(document).text
