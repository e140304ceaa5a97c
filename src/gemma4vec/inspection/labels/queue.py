"""The file of pairs to read: how it is written, and the grades that somebody wrote into it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gemma4vec.data.rows.jsonl import read_lines, write_lines
from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.errors import InputError
from gemma4vec.inspection.labels.doubtful import Doubtful
from gemma4vec.inspection.labels.draws import Draw, Pair, parse_draw, random_place
from gemma4vec.inspection.labels.judgments import Judgment

RIGHT_SHOWN = 3  # documents that the suite judges right


def ordered(flagged: Sequence[Doubtful], draw: Draw, fingerprint: str) -> list[Doubtful]:
    """The flagged pairs in the order of this draw; they come with those that are most likely right first."""
    seed = draw.seed
    if seed is None:
        return list(flagged)
    return sorted(flagged, key=lambda one: random_place(one.pair, seed, fingerprint))


def write_queue(file: Path, queue: Sequence[Doubtful], draw: Draw, suite: RetrievalSuite) -> None:
    """A pair a line with its texts and an empty grade, also for documents that the suite judges right."""
    texts = dict(zip(suite.query_ids, suite.queries, strict=True))
    place = {key: index for index, key in enumerate(suite.corpus_ids)}
    entries = [
        {
            **one.as_json(),
            "drawn": draw.as_json(),
            "query": texts[one.query_id],
            "document": _texts(suite, place[one.doc_id]),
            "right": [
                {"doc_id": key, **_texts(suite, place[key]), "label": label, "grade": None}
                for key, label in sorted(suite.qrels[one.query_id].items())
                if label >= 1 and key in place
            ][:RIGHT_SHOWN],
            "grade": None,
        }
        for one in queue
    ]
    write_lines(file, entries)


def read_grades(file: Path) -> list[Judgment]:
    """Every grade in a queue, each pair once; lines without one are left out.

    Raises:
        InputError: the file cannot be read, has a bad line, or two grades for one pair.
    """
    found: dict[Pair, tuple[int, Judgment]] = {}
    for number, value, reason in read_lines(file):
        if value is None or not isinstance(value.get("query_id"), str) or not isinstance(value.get("doc_id"), str):
            wrong = reason or 'expected an object with "query_id", "doc_id" and "grade"'
            raise InputError(f"{file} line {number}: {wrong}")
        try:
            graded = list(_grades_of(value))
        except ValueError as error:
            raise InputError(f"{file} line {number}: {error}") from error
        for one in graded:
            pair = one.query_id, one.doc_id
            before, known = found.setdefault(pair, (number, one))
            if known.grade != one.grade:
                raise InputError(
                    f"{file} lines {before} and {number} grade query {pair[0]}, document {pair[1]} differently; "
                    "keep one grade"
                )
            if one.draw is not None and known.draw is None:
                found[pair] = before, one
    return [one for _, one in found.values()]


def _grades_of(line: Mapping[str, Any]) -> Iterator[Judgment]:
    """The grades of a line: of its pair, and of documents that the suite judges right."""
    grade, draw = _grade(line.get("grade")), parse_draw(line.get("drawn"))
    if grade is not None:
        yield Judgment(line["query_id"], line["doc_id"], grade, draw)
    right = line.get("right")
    for one in right if isinstance(right, list) else []:
        grade = _grade(one.get("grade")) if isinstance(one, dict) else None
        if grade is None:
            continue
        if not isinstance(one.get("doc_id"), str):
            raise ValueError('a document in "right" has a grade and no "doc_id"')
        yield Judgment(line["query_id"], one["doc_id"], grade)


def _grade(value: Any) -> int | None:
    if value is None:
        return None
    if type(value) is float and math.isfinite(value) and value == int(value):
        value = int(value)
    if type(value) is not int:
        raise ValueError('"grade" is a whole number, null where nobody judged')
    return value


def _texts(suite: RetrievalSuite, place: int) -> dict[str, str]:
    """Title and text of a document, without an empty title."""
    one = suite.corpus[place]
    return {"title": one.title, "text": one.text} if one.title else {"text": one.text}
