"""Verdicts of people or programs: an append-only file beside the suite, which is never edited.

`HOME/judgments/<suite>-<fingerprint>.jsonl`: an object a line, `query_id, doc_id, grade, by, time`, and `drawn` where
it is known in what order of the queue the pair was. Of several lines on a pair the last has the grade. The name has the
suite's contents, so that judgments are never read for other texts.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from gemma4vec.data.rows.jsonl import read_lines
from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.errors import InputError
from gemma4vec.files import disk_errors, home
from gemma4vec.inspection.labels.draws import Draw, Pair, parse_draw
from gemma4vec.ledger.ledger import now
from gemma4vec.ledger.run_folder import slug

HIGHEST = 10  # grade


@dataclass(frozen=True)
class Judgment:
    """One pair with a verdict: grade 0 is wrong, from 1 it is right; how the pair was drawn, if that is known."""

    query_id: str
    doc_id: str
    grade: int
    draw: Draw | None = None


@dataclass(frozen=True)
class Verdicts:
    """The last grade of each pair, every draw that it was read from, and the names of who gave the grades."""

    grades: dict[Pair, int] = field(default_factory=dict)
    draws: dict[Pair, set[Draw]] = field(default_factory=dict)
    by: dict[Pair, str] = field(default_factory=dict)


def judgments_file(suite: RetrievalSuite) -> Path:
    """Where the judgments of a suite's contents are."""
    return home() / "judgments" / f"{slug(suite.name)}-{suite.fingerprint[:12]}.jsonl"


def load_judgments(suite: RetrievalSuite) -> dict[Pair, int]:
    """(query, document) -> grade, the last of each pair; lines that a kill cut off are skipped."""
    return load_verdicts(suite).grades


def load_verdicts(suite: RetrievalSuite) -> Verdicts:
    """Everything that the suite's file has; lines that a kill cut off are skipped."""
    file, found = judgments_file(suite), Verdicts()
    if not file.is_file():
        return found
    for _, value, _ in read_lines(file):
        entry = value or {}
        pair, grade = (entry.get("query_id"), entry.get("doc_id")), entry.get("grade")
        if isinstance(pair[0], str) and isinstance(pair[1], str) and type(grade) is int:
            known = pair[0], pair[1]
            found.grades[known] = grade
            found.by[known] = str(entry.get("by") or "")
            with contextlib.suppress(ValueError):
                draw = parse_draw(entry.get("drawn"))
                found.draws.setdefault(known, set()).update([draw] if draw is not None else [])
    return found


def add_judgments(suite: RetrievalSuite, judged: Sequence[Judgment], by: str = "") -> int:
    """Append judgments; return how many lines were added: a pair that has this grade and draw already adds none.

    Raises:
        InputError: a query or document that the suite lacks, or a grade that is no whole number from 0 to 10.
        WorkError: the file cannot be written.
    """
    queries, documents = set(suite.query_ids), set(suite.corpus_ids)
    for one in judged:
        if one.query_id not in queries or one.doc_id not in documents:
            unknown = f"query {one.query_id}" if one.query_id not in queries else f"document {one.doc_id}"
            raise InputError(f"{suite.name} has no {unknown}; judge pairs of this suite's own queue")
        if type(one.grade) is not int or not 0 <= one.grade <= HIGHEST:
            raise InputError(f"query {one.query_id}, document {one.doc_id}: a grade is a number from 0 to {HIGHEST}")
    file = judgments_file(suite)
    with disk_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(_Appending(file)) as stream:
            known = load_verdicts(suite)
            lines = [_line(one, by) for one in judged if _is_new(one, known)]
            stream.append("".join(lines))
    return len(lines)


def _is_new(one: Judgment, known: Verdicts) -> bool:
    """Whether a judgment says what is not known yet, which `known` then has."""
    pair = one.query_id, one.doc_id
    draws = known.draws.setdefault(pair, set())
    if known.grades.get(pair) == one.grade and (one.draw is None or one.draw in draws):
        return False
    known.grades[pair] = one.grade
    draws.update([one.draw] if one.draw is not None else [])
    return True


def _line(one: Judgment, by: str) -> str:
    drawn = {} if one.draw is None else {"drawn": one.draw.as_json()}
    entry = {"query_id": one.query_id, "doc_id": one.doc_id, "grade": one.grade, **drawn, "by": by, "time": now()}
    return json.dumps(entry, ensure_ascii=True) + "\n"


def _is_right(grade: int) -> bool:
    return grade >= 1


def contradicted(suite: RetrievalSuite, grades: Mapping[Pair, int]) -> tuple[dict[Pair, int], dict[Pair, int]]:
    """Verdicts on documents that the suite judges: those that contradict its labels, and those that confirm them."""
    of_suite = {
        (query, document): grade
        for (query, document), grade in grades.items()
        if document in suite.qrels.get(query, {})
    }
    against = {
        (query, document): grade
        for (query, document), grade in of_suite.items()
        if _is_right(grade) != _is_right(suite.qrels[query][document])
    }
    return against, {pair: grade for pair, grade in of_suite.items() if pair not in against}


def overlaid(suite: RetrievalSuite, grades: Mapping[Pair, int]) -> tuple[RetrievalSuite, list[str]]:
    """The suite with these verdicts over its own labels, and the queries that would have no right document then.

    Those queries keep the suite's labels. A verdict that confirms a label leaves its grade.
    """
    qrels = {query: dict(labels) for query, labels in suite.qrels.items()}
    for (query, document), grade in grades.items():
        label = suite.qrels.get(query, {}).get(document)
        if query in qrels and (label is None or _is_right(label) != _is_right(grade)):
            qrels[query][document] = grade
    emptied = [query for query, labels in qrels.items() if not any(map(_is_right, labels.values()))]
    return replace(suite, qrels={**qrels, **{query: suite.qrels[query] for query in emptied}}), emptied


class _Appending:
    """A file that one process at a time appends to, in whole lines."""

    def __init__(self, file: Path) -> None:
        self.descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        fcntl.lockf(self.descriptor, fcntl.LOCK_EX)

    def append(self, text: str) -> None:
        """Append, after ending a line that a kill left partial."""
        size = os.fstat(self.descriptor).st_size
        torn = size > 0 and os.pread(self.descriptor, 1, size - 1) != b"\n"
        data = (b"\n" if torn else b"") + text.encode("ascii")
        while data and text:
            data = data[os.write(self.descriptor, data) :]
        os.fsync(self.descriptor)

    def close(self) -> None:
        """Release the lock."""
        os.close(self.descriptor)
