"""Relevance judgments in BEIR's format (Thakur et al., 2021): lines of query id, document id and grade, after a header.

Ids and grades go to trec_eval, which is written in C: it crashes on a lone surrogate, ends an id at a NUL character,
and scores grades beyond 32 bits as 0. All sources of ids and grades are therefore checked here.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gemma4vec.data.rows.jsonl import explain_not_utf8, json_type, raw_lines
from gemma4vec.errors import InputError

# trec_eval counts the judgments of each grade in a table with an entry for every grade up to the highest.
HIGHEST_GRADE = 1_000_000
# Names of the third column. Another word may be a mistyped score, which must not be taken for a header.
GRADE_COLUMNS = {"score", "scores", "relevance", "rel", "relevant", "label", "grade", "judgment", "judgement", "rating"}
UNUSABLE = re.compile("[\x00\ud800-\udfff]")
SHOWN = 60


class Judgment(NamedTuple):
    """One judgment and its line, from 1."""

    line: int
    query: str
    document: str
    grade: int


def read_judgments(path: Path, *, header: bool) -> Iterator[Judgment]:
    """Read a file of judgments (.gz and .zst by suffix).

    Args:
        path: the file.
        header: whether the first line must be a header; otherwise it may also be a judgment.

    Raises:
        InputError: the file cannot be read; the first line is neither a header nor, if allowed, a judgment; a line does
            not have three cells; or a score is no whole number. Names the line.
    """
    first = True
    for number, raw in raw_lines(path):
        where = f"{path} line {number}"
        try:
            cells = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n").split("\t")
        except UnicodeDecodeError as error:
            raise InputError(f"{where}: {explain_not_utf8(error, raw)}") from error
        if first:
            first = False
            if _is_header(cells):
                continue
            if header:
                raise InputError(
                    f"{where}: the header (query-id, corpus-id, score) is missing or not separated by tabs; add it"
                )
        if len(cells) != 3:
            raise InputError(f"{where}: query-id, corpus-id and score separated by tabs are needed")
        yield Judgment(number, cells[0], cells[1], parse_grade(cells[2], where))


def _is_header(cells: list[str]) -> bool:
    """Whether the cells name columns: a known name of grades, or two names of ids and a word."""
    if len(cells) != 3:
        return False
    query, document, grade = (cell.strip(' "').lower() for cell in cells)
    return grade in GRADE_COLUMNS or (query.endswith("id") and document.endswith("id") and grade.isalpha())


def parse_grade(value: object, where: str) -> int:
    """A grade from a cell of a text file or a table.

    Raises:
        InputError: not a whole number, or beyond `HIGHEST_GRADE`.
    """
    shown = repr(value)[:SHOWN]
    try:
        grade = float("nan") if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except OverflowError:
        grade = float("inf")
    except (TypeError, ValueError):
        grade = float("nan")
    if abs(grade) > HIGHEST_GRADE:
        raise InputError(f"{where}: score {shown} is beyond {HIGHEST_GRADE:,}; use a grade such as 0, 1 or 2")
    if not grade.is_integer():
        raise InputError(f"{where}: score {shown} is not a whole number; use a grade such as 0, 1 or 2")
    return int(grade)


def parse_id(value: object, where: str) -> str:
    """The id of a query or document; whole numbers become strings.

    Raises:
        InputError: another type, empty, or with a character that trec_eval cannot take.
    """
    if type(value) is int:
        return str(value)
    if not isinstance(value, str):
        raise InputError(f"{where}: a string is needed, not {json_type(value)}")
    if not value:
        raise InputError(f"{where}: a string is needed, this one is empty")
    if not is_usable_id(value):
        raise InputError(
            f"{where}: the id {ascii(value)[:SHOWN]} has a lone surrogate or a NUL character; use another id"
        )
    return value


def is_usable_id(key: str) -> bool:
    """Whether trec_eval can take an id: no lone surrogate and no NUL character."""
    return UNUSABLE.search(key) is None
