"""A queue of doubtful pairs for a person, what they would change, and what people judged so far."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gemma4vec.data.rows.jsonl import read_lines, write_lines
from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.errors import InputError
from gemma4vec.evaluation.scoring.ranking import Progress, no_progress
from gemma4vec.files import check_writable, write_json
from gemma4vec.inspection.inspect import steps_of
from gemma4vec.inspection.inspected import Subject
from gemma4vec.inspection.labels.doubtful import METRIC, find_doubtful, flag_precision, score_bounds, score_with
from gemma4vec.inspection.labels.judgments import (
    Judgment,
    add_judgments,
    judgments_file,
    load_judgments,
    overlaid,
)
from gemma4vec.inspection.reading import Reading, read_model
from gemma4vec.ledger.suite_access import check_choice
from gemma4vec.ledger.suite_halves import sealed_half, shown_half

QUEUE, ABOUT = "queue.jsonl", "labels.json"


def find_labels(
    subjects: Sequence[Subject], suite: RetrievalSuite, out: Path, *, progress: Progress = no_progress
) -> dict[str, Any]:
    """Write `queue.jsonl` and `labels.json` into `out`; return the latter.

    Args:
        subjects: two models or more, best of different kinds, such as BM25 and an encoder.

    Raises:
        InputError: fewer than two models; a final suite; a queue with grades that nobody recorded.
    """
    check_choice("inspect labels shows single queries", suite)
    names = [one.model.name for one in subjects]
    if len({one.model.fingerprint for one in subjects}) < 2 or len(set(names)) < len(names):
        raise InputError("inspect labels: name two different models or more; one alone agrees with itself")
    check_writable(out)
    _refuse_lost_grades(out / QUEUE, suite)
    sealed_N = sealed_half(suite)
    open_N = np.ones(len(suite.queries), dtype=bool) if sealed_N is None else ~sealed_N
    readings = {one.model.name: _read(one, suite, progress) for one in subjects}
    shown_N = shown_half(suite)
    flagged = find_doubtful(suite, readings, shown_N)
    judged = load_judgments(suite)
    changed = overlaid(suite, judged)
    queue = [one for one in flagged if (one.query_id, one.doc_id) not in judged]
    found = {
        "suite": {"name": suite.name, "fingerprint": suite.fingerprint},
        "models": names,
        "metric": METRIC,
        "queries": int(open_N.sum()),
        "withheld": int((open_N & ~shown_N).sum()),
        "flagged": len(flagged),
        "flagged_queries": len({one.query_id for one in flagged}),
        "near_copies": sum(one.duplicate_of is not None for one in flagged),
        "queue": len(queue),
        "judged": len(judged),
        **flag_precision(flagged, judged),
        "scores": [
            {
                "model": name,
                **score_bounds(suite, reading, open_N),
                "judged_by_people": score_with(changed, reading, open_N),
            }
            for name, reading in readings.items()
        ],
        "judgments": str(judgments_file(suite)),
    }
    texts = dict(zip(suite.query_ids, suite.queries, strict=True))
    place = {key: index for index, key in enumerate(suite.corpus_ids)}
    out.mkdir(parents=True, exist_ok=True)
    entries = [
        {
            **one.as_json(),
            "query": texts[one.query_id],
            "document": document_texts(suite, place[one.doc_id]),
            "right": [
                {"doc_id": key, **document_texts(suite, place[key])}
                for key, grade in sorted(suite.qrels[one.query_id].items())
                if grade >= 1 and key in place
            ][:3],
            "grade": None,
        }
        for one in queue
    ]
    write_lines(out / QUEUE, entries)
    write_json(out / ABOUT, found)
    return {"folder": str(out), **found}


def record_queue(file: Path, suite: RetrievalSuite, by: str = "") -> dict[str, Any]:
    """Append the grades that a person wrote into a queue to the suite's judgments.

    Raises:
        InputError: the file cannot be read, has a bad line, or no grade.
    """
    graded = _grades(file)
    if not graded:
        raise InputError(f'{file} has no grade; write 1 (right) or 0 (wrong) for "grade" where it is null')
    added = add_judgments(suite, graded, by)
    return {"file": str(judgments_file(suite)), "graded": len(graded), "added": added, "suite": suite.name}


def document_texts(suite: RetrievalSuite, place: int) -> dict[str, str]:
    """Title and text of a document, without an empty title."""
    one = suite.corpus[place]
    return {"title": one.title, "text": one.text} if one.title else {"text": one.text}


def _grades(file: Path) -> list[Judgment]:
    graded = []
    for number, value, reason in read_lines(file):
        entry = value or {}
        query, document, grade = entry.get("query_id"), entry.get("doc_id"), entry.get("grade")
        if not isinstance(query, str) or not isinstance(document, str):
            wrong = reason or 'expected an object with "query_id", "doc_id" and "grade"'
            raise InputError(f"{file} line {number}: {wrong}")
        if grade is None:
            continue
        if type(grade) is float and math.isfinite(grade) and grade == int(grade):
            grade = int(grade)
        if type(grade) is not int:
            raise InputError(f'{file} line {number}: "grade" is a whole number, null where nobody judged')
        graded.append(Judgment(query, document, grade))
    return graded


def _refuse_lost_grades(file: Path, suite: RetrievalSuite) -> None:
    """Refuse to replace a queue whose grades are not in the overlay."""
    if not file.is_file():
        return
    known = load_judgments(suite)
    lost = [one for one in _grades(file) if known.get((one.query_id, one.doc_id)) != one.grade]
    if lost:
        raise InputError(
            f"{file} has {len(lost)} grades that are not recorded; record them first: gemma4vec inspect judge {file} "
            "with the same --suite"
        )


def _read(one: Subject, suite: RetrievalSuite, progress: Progress) -> Reading:
    return read_model(one.model, suite, steps_of(one, suite.fingerprint), run=one.run, progress=progress)
