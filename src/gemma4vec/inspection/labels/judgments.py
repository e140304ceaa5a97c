"""What people judged: an append-only file beside the suite, which is never edited.

`HOME/judgments/<suite>-<fingerprint>.jsonl`: an object a line, `query_id, doc_id, grade, by, time`. Of several lines on
a pair the last counts. The name has the suite's contents, so that judgments are never read for other texts.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gemma4vec.data.rows.jsonl import read_lines
from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.errors import InputError
from gemma4vec.files import disk_errors, home
from gemma4vec.ledger.ledger import now
from gemma4vec.ledger.run_folder import slug

HIGHEST = 10  # grade


@dataclass(frozen=True)
class Judgment:
    """One pair that a person judged: grade 0 is wrong, from 1 it is right."""

    query_id: str
    doc_id: str
    grade: int


def judgments_file(suite: RetrievalSuite) -> Path:
    """Where the judgments of a suite's contents are."""
    return home() / "judgments" / f"{slug(suite.name)}-{suite.fingerprint[:12]}.jsonl"


def load_judgments(suite: RetrievalSuite) -> dict[tuple[str, str], int]:
    """(query, document) -> grade, the last of each pair; lines that a kill cut off are skipped."""
    file = judgments_file(suite)
    if not file.is_file():
        return {}
    found: dict[tuple[str, str], int] = {}
    for _, value, _ in read_lines(file):
        entry = value or {}
        pair, grade = (entry.get("query_id"), entry.get("doc_id")), entry.get("grade")
        if isinstance(pair[0], str) and isinstance(pair[1], str) and type(grade) is int:
            found[pair[0], pair[1]] = grade
    return found


def add_judgments(suite: RetrievalSuite, judged: Sequence[Judgment], by: str = "") -> int:
    """Append judgments; return how many lines were added: a pair that has this grade already adds none.

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
            known = load_judgments(suite)
            lines = []
            for one in judged:
                if known.get((one.query_id, one.doc_id)) != one.grade:
                    known[one.query_id, one.doc_id] = one.grade
                    entry = {
                        "query_id": one.query_id,
                        "doc_id": one.doc_id,
                        "grade": one.grade,
                        "by": by,
                        "time": now(),
                    }
                    lines.append(json.dumps(entry, ensure_ascii=True) + "\n")
            stream.append("".join(lines))
    return len(lines)


def overlaid(suite: RetrievalSuite, judged: Mapping[tuple[str, str], int]) -> RetrievalSuite:
    """The suite with these judgments over its own; queries that lose their last right document keep their own."""
    qrels = {query: dict(grades) for query, grades in suite.qrels.items()}
    for (query, document), grade in judged.items():
        if query in qrels:
            qrels[query][document] = grade
    kept = {query: grades if max(grades.values()) >= 1 else suite.qrels[query] for query, grades in qrels.items()}
    return replace(suite, qrels=kept)


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
