"""Queries whose score differs between two runs: of those that may be shown alone, largest difference first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gemma4vec.errors import InputError
from gemma4vec.evaluation.comparison.comparable import check_comparable
from gemma4vec.evaluation.results.result import Result
from gemma4vec.ledger.suite_halves import shown_queries
from gemma4vec.report.content.comparison_data import RunComparison, SuiteSection
from gemma4vec.report.content.run_data import PRIMARY, RunData, shorten, suite_place
from gemma4vec.ui.content.stored_inspections import StoredInspection, same_contents
from gemma4vec.ui.content.suite_texts import SuiteTexts, Texts

SHOWN = 25  # in each direction
EXCERPT = 160  # characters


@dataclass(frozen=True)
class FlippedQuery:
    """One query.

    Attributes:
        tops: (document id, whether it is right, its beginning) of each side's first ten.
    """

    id: str
    query: str
    a: float
    b: float
    tops: tuple[list[tuple[str, bool, str]], list[tuple[str, bool, str]]]


@dataclass(frozen=True)
class Flips:
    """The flipped queries of two runs on one suite.

    Attributes:
        a, b: names of the two; differences are A - B.
        better, worse: queries on which A is above, below B; `numbers`: how many of the open half there are.
        note: why there are none, or no texts.
    """

    suite: str
    a: str
    b: str
    better: list[FlippedQuery]
    worse: list[FlippedQuery]
    numbers: tuple[int, int, int]
    note: str


def find_flips(
    found: RunComparison, section: SuiteSection, suites: SuiteTexts, stored: Sequence[StoredInspection] = ()
) -> Flips | None:
    """Of the first two recipes' first runs; None where there are not two with scores of single queries.

    Texts are where the run's manifest or its result says, else where an inspection of the same suite has them from.
    """
    if section.metric != PRIMARY or len(found.groups) < 2:
        return None
    sides = [_side(group.runs[0], section.name) for group in found.groups[:2]]
    names = [group.label for group in found.groups[:2]]
    if sides[0] is None or sides[1] is None:
        return None
    a, b = sides[1], sides[0]  # as the page: the others minus the first
    empty = Flips(section.name, names[1], names[0], [], [], (0, 0, 0), "")
    why = why_not(a[1])
    if not why:
        try:
            check_comparable(a[1], b[1], PRIMARY)
        except InputError as error:
            why = f"Single queries are not compared: {error}."
    if why:
        return Flips(**{**vars(empty), "note": why})
    return _flips(empty, a, b, _texts(a[0], a[1], suites, stored))


def why_not(result: Result) -> str:
    """Why single queries of a result are not shown; empty if they may be."""
    about = result.settings.get("suite") or {}
    if about.get("role") != "dev":
        return "Single queries are shown of dev suites alone: a look at failures teaches more than a score."
    if len(result.per_query) != 1 or not isinstance(about.get("fingerprint"), str):
        return "Single queries of a suite of several tasks are not shown; inspect one task."
    return ""


def _side(run: RunData, suite: str) -> tuple[RunData, Result, Any] | None:
    for one in run.suites:
        if one.name == suite and "trained" in one.results:
            return run, one.results["trained"], one.tops.get("trained", {})
    return None


def _texts(run: RunData, result: Result, suites: SuiteTexts, stored: Sequence[StoredInspection]) -> Texts:
    place, fingerprint = suite_place(run, result.suite), str(result.settings["suite"]["fingerprint"])
    if place is not None:
        return suites.opened(place, fingerprint)
    for one in same_contents(fingerprint, stored)[:1]:
        return suites.of_inspection(one.about)
    return Texts(
        None,
        "Neither the run nor an inspection says where this suite's texts are, so ids are shown; after the gemma4vec "
        "inspect above they are.",
    )


def _flips(empty: Flips, a: tuple[RunData, Result, Any], b: tuple[RunData, Result, Any], texts: Texts) -> Flips:
    keys, a_N = a[1].values(PRIMARY)
    _, b_N = b[1].values(PRIMARY)
    ids = [key for _, key in keys]
    known = [texts.queries.get(one, "") for one in ids] if texts.queries else None
    rows = np.flatnonzero(shown_queries(str(a[1].settings["suite"]["fingerprint"]), ids, known)).tolist()
    qrels = {} if texts.suite is None else texts.suite.qrels
    changed = [row for row in rows if a_N[row] != b_N[row]]
    differing = sorted(changed, key=lambda row: (-abs(a_N[row] - b_N[row]), ids[row]))

    def make(row: int) -> FlippedQuery:
        right = {key for key, grade in qrels.get(ids[row], {}).items() if grade >= 1}
        first, second = (
            [(key, key in right, _beginning(texts, key)) for key, _ in side[2].get(ids[row], [])] for side in (a, b)
        )
        query = texts.queries.get(ids[row], "")
        return FlippedQuery(ids[row], query, float(a_N[row]), float(b_N[row]), (first, second))

    better = [row for row in differing if a_N[row] > b_N[row]]
    worse = [row for row in differing if a_N[row] < b_N[row]]
    numbers = (len(better), len(worse), len(rows))
    shown = {"better": [make(row) for row in better[:SHOWN]], "worse": [make(row) for row in worse[:SHOWN]]}
    return Flips(**{**vars(empty), **shown, "numbers": numbers, "note": texts.problem})


def _beginning(texts: Texts, key: str) -> str:
    document = texts.document(key)
    return (
        "" if document is None else shorten(" ".join((document.title or "", document.text[:EXCERPT])).strip(), EXCERPT)
    )
