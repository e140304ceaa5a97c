"""A queue of doubtful pairs to read, what they would change, and what the verdicts so far say."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.errors import InputError
from gemma4vec.evaluation.scoring.ranking import Progress, no_progress
from gemma4vec.files import check_writable, write_json
from gemma4vec.inspection.inspect import steps_of
from gemma4vec.inspection.inspected import Subject
from gemma4vec.inspection.labels.doubtful import METRIC, Doubtful, find_doubtful, score_bounds, score_with
from gemma4vec.inspection.labels.draws import LIKELY_FIRST, Draw, Pair, shares
from gemma4vec.inspection.labels.judgments import (
    Judgment,
    Verdicts,
    add_judgments,
    contradicted,
    judgments_file,
    load_judgments,
    load_verdicts,
    overlaid,
)
from gemma4vec.inspection.labels.queue import ordered, read_grades, write_queue
from gemma4vec.inspection.reading import Reading, read_model
from gemma4vec.ledger.suite_access import check_choice
from gemma4vec.ledger.suite_halves import sealed_half, shown_half

QUEUE, ABOUT = "queue.jsonl", "labels.json"
Mask = npt.NDArray[np.bool_]


def check_labels(suite: RetrievalSuite, out: Path) -> None:
    """Refuse what can be refused before a model is loaded.

    Raises:
        InputError: a final suite; a folder that cannot be written; a queue with grades that nobody recorded.
    """
    check_choice("inspect labels shows single queries", suite)
    check_writable(out)
    _refuse_lost_grades(out / QUEUE, suite)


def find_labels(
    subjects: Sequence[Subject],
    suite: RetrievalSuite,
    out: Path,
    *,
    draw: Draw = LIKELY_FIRST,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Write `queue.jsonl` and `labels.json` into `out`; return the latter.

    Args:
        subjects: two models or more, best of different kinds, such as BM25 and an encoder.
        draw: the order of the queue.

    Raises:
        InputError: fewer than two models; as `check_labels`.
    """
    check_labels(suite, out)
    names = [one.model.name for one in subjects]
    if len({one.model.fingerprint for one in subjects}) < 2 or len(set(names)) < len(names):
        raise InputError("inspect labels: name two different models or more; one alone agrees with itself")
    sealed_N = sealed_half(suite)
    open_N = np.ones(len(suite.queries), dtype=bool) if sealed_N is None else ~sealed_N
    readings = {one.model.name: _read(one, suite, progress) for one in subjects}
    shown_N = shown_half(suite)
    flagged = find_doubtful(suite, readings, shown_N)
    verdicts = _of_open_queries(load_verdicts(suite), suite, open_N)
    queue = [one for one in ordered(flagged, draw, suite.fingerprint) if one.pair not in verdicts.grades]
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
        "drawn": draw.as_json(),
        "precision": shares([one.pair for one in flagged], verdicts.grades, verdicts.draws, suite.fingerprint),
        "judgments": str(judgments_file(suite)),
        **_judged(suite, readings, flagged, verdicts.grades, open_N),
        "readers": dict(Counter(verdicts.by.values())),
    }
    out.mkdir(parents=True, exist_ok=True)
    write_queue(out / QUEUE, queue, draw, suite)
    write_json(out / ABOUT, found)
    return {"folder": str(out), **found}


def _judged(
    suite: RetrievalSuite,
    readings: Mapping[str, Reading],
    flagged: Sequence[Doubtful],
    grades: Mapping[Pair, int],
    open_N: Mask,
) -> dict[str, Any]:
    """Verdicts in numbers, and each model's scores by the suite and with them."""
    against, confirmed = contradicted(suite, grades)
    added, _ = overlaid(suite, {pair: grade for pair, grade in grades.items() if pair not in against})
    changed, emptied = overlaid(suite, grades)
    unread = {one.pair for one in flagged} - set(grades)
    scores = [
        {
            "model": name,
            "suite": score_with(suite, reading, open_N),
            "with_verdicts": score_with(added, reading, open_N),
            "with_contradictions": score_with(changed, reading, open_N),
            "if_flagged": _without_none(score_bounds(changed, reading, open_N, unread)),
            "if_unjudged": _without_none(score_bounds(suite, reading, open_N)),
        }
        for name, reading in readings.items()
    ]
    return {
        "judged": len(grades),
        "labels_contradicted": len(against),
        "labels_confirmed": len(confirmed),
        "labels_kept": len(emptied),
        "unread_flags": len(unread),
        "scores": scores,
    }


def _without_none(bounds: Mapping[str, float]) -> dict[str, float]:
    """Without the value that says nothing new: if none is right, the score stays."""
    return {key: value for key, value in bounds.items() if key != "none"}


def record_queue(graded: Sequence[Judgment], file: Path, suite: RetrievalSuite, by: str = "") -> dict[str, Any]:
    """Append the grades of a queue (`graded_lines`) to the suite's judgments.

    Raises:
        InputError: a query or document that the suite lacks, or a grade out of range.
        WorkError: the judgments cannot be written.
    """
    added = add_judgments(suite, graded, by)
    against, _ = contradicted(suite, {(one.query_id, one.doc_id): one.grade for one in graded})
    counts = {"graded": len(graded), "added": added, "labels_contradicted": len(against)}
    return {"file": str(judgments_file(suite)), "queue": str(file), **counts, "suite": suite.name}


def graded_lines(file: Path) -> list[Judgment]:
    """The grades that somebody wrote into a queue.

    Raises:
        InputError: the file cannot be read, has a bad line, two grades for one pair, or no grade.
    """
    graded = read_grades(file)
    if not graded:
        raise InputError(f'{file} has no grade; write 1 (right) or 0 (wrong) for "grade" where it is null')
    return graded


def _of_open_queries(verdicts: Verdicts, suite: RetrievalSuite, open_N: Mask) -> Verdicts:
    """Verdicts on open queries; how pairs were drawn says something of all."""
    shown = {key for key, is_open in zip(suite.query_ids, open_N.tolist(), strict=True) if is_open}
    grades = {pair: grade for pair, grade in verdicts.grades.items() if pair[0] in shown}
    return Verdicts(grades, verdicts.draws, {pair: verdicts.by[pair] for pair in grades})


def _refuse_lost_grades(file: Path, suite: RetrievalSuite) -> None:
    """Refuse to replace a queue whose grades are not in the overlay."""
    if not file.is_file():
        return
    known = load_judgments(suite)
    lost = [one for one in read_grades(file) if known.get((one.query_id, one.doc_id)) != one.grade]
    if lost:
        raise InputError(
            f"{file} has {len(lost)} grades that are not recorded; record them first: gemma4vec inspect judge {file} "
            "with the same --suite"
        )


def _read(one: Subject, suite: RetrievalSuite, progress: Progress) -> Reading:
    return read_model(one.model, suite, steps_of(one, suite.fingerprint), run=one.run, progress=progress)
