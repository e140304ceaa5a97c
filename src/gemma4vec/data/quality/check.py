"""Check training data for contamination by suites and for flaws of its own, in two passes over each source."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from gemma4vec.data.loading.resolve_names import load_source
from gemma4vec.data.ngrams.language import detection_method, make_detector
from gemma4vec.data.quality.contamination import ContaminationIndex, Hit, SuiteOverlap, collect_overlaps
from gemma4vec.data.quality.contamination_record import ContaminationRecord
from gemma4vec.data.quality.overlap import CONTAINED_WORDS, NEAR, SHINGLE
from gemma4vec.data.quality.row_faults import DROPPED, Flaw, FlawFinder
from gemma4vec.data.rows.rows import Row
from gemma4vec.data.suites.texts import SuiteTexts
from gemma4vec.errors import InputError
from gemma4vec.recipe.schema import Source

logger = logging.getLogger(__name__)

MAX_REASONS = 5  # stored for each row


@dataclass
class RowFault:
    """Reasons to leave out a row or some of its negatives.

    Attributes:
        whole: the row itself is faulty.
        copy: the row is a duplicate of an earlier one.
        negatives: positions of the faulty negatives.
        reasons: the first few reasons.
    """

    whole: bool = False
    copy: bool = False
    negatives: set[int] = field(default_factory=set)
    reasons: list[str] = field(default_factory=list)

    def add(self, reason: str, negatives: Sequence[int] = ()) -> None:
        """Add a reason to leave out the row, or only these negatives."""
        self.copy |= reason == "duplicate"
        self.whole |= reason != "duplicate" and not negatives
        self.negatives.update(negatives)
        if reason not in self.reasons and len(self.reasons) < MAX_REASONS:
            self.reasons.append(reason)


@dataclass
class SourceReport:
    """Results of checking one source.

    Attributes:
        rows: the source's rows, in order.
        bad_rows: number of rows that could not be read.
        counts: numbers of unusual texts, as `rows.RowsRead` has them.
        flaws: kind -> number of rows.
        flaw_examples: kind -> a few rows.
        cut: result of `row_faults.FlawFinder.find_cut`.
        found: overlap with each suite.
        touched: ids of the touched queries of each suite.
        faults: row number (from 1) -> reasons to leave it out.
    """

    name: str
    content_hash: str
    rows: Sequence[Row]
    bad_rows: int
    counts: dict[str, int]
    flaws: dict[str, int]
    flaw_examples: dict[str, list[dict[str, Any]]]
    cut: dict[str, int] | None
    found: list[SuiteOverlap]
    touched: list[list[str]]
    faults: dict[int, RowFault]


def check_sources(
    sources: Sequence[Source],
    suites: Sequence[SuiteTexts],
    *,
    near: float = NEAR,
    languages: Sequence[str] = (),
) -> list[SourceReport]:
    """Check every source against every suite.

    Args:
        sources: sources of rows; any number of bad rows is counted, not refused.
        suites: may be empty; then only the rows themselves are checked.
        near: minimum Jaccard similarity of a near match, 0.5 to 1.
        languages: accepted ISO 639 codes; a row clearly in another language is a fault. Empty accepts all.

    Raises:
        InputError: a source cannot be read or has no rows, or `near` is outside of 0.5 to 1.
    """
    if not 0.5 <= near <= 1:
        raise InputError(
            f"--near {near}: must be a Jaccard similarity from 0.5 to 1 (MinHash would miss pairs below 0.5)"
        )
    if suites:
        texts = sum(len(suite.documents) + len(suite.queries) for suite in suites)
        logger.info(f"indexing {texts:,} texts of {len(suites)} suites")
    index = ContaminationIndex(suites, near)
    return [_check(source, index, languages) for source in sources]


def _check(source: Source, index: ContaminationIndex, languages: Sequence[str]) -> SourceReport:
    rows, facts = load_source(source.model_copy(update={"max_bad_share": 1.0}))
    logger.info(f"checking {len(rows):,} rows of {source.name}")
    finder = FlawFinder(make_detector() if languages else None, languages)
    faults: dict[int, RowFault] = {}
    for row in rows:
        for flaw in finder.check(row):
            _note_flaw(flaw, faults)
    found = collect_overlaps(_note_hits(index.hits(rows), index, faults), len(index.suites), source.name)
    return SourceReport(
        name=source.name,
        content_hash=facts["content_hash"],
        rows=rows,
        bad_rows=facts["bad_rows"],
        counts=facts["counts"],
        flaws=dict(finder.counts),
        flaw_examples=finder.examples,
        cut=finder.find_cut(),
        found=found,
        touched=[index.find_touched(number, one) for number, one in enumerate(found)],
        faults=faults,
    )


def _note_flaw(flaw: Flaw, faults: dict[int, RowFault]) -> None:
    if flaw.kind in DROPPED:
        faults.setdefault(flaw.row, RowFault()).add(flaw.kind, flaw.negatives)


def _note_hits(hits: Iterator[Hit], index: ContaminationIndex, faults: dict[int, RowFault]) -> Iterator[Hit]:
    """Pass on the hits, adding each to the faults of its row or of its negative."""
    for hit in hits:
        where = f"{index.suites[hit.item.suite].name} {hit.item.side} {hit.item.id}"
        negatives = (hit.place,) if hit.field == "negative" else ()
        faults.setdefault(hit.row, RowFault()).add(f"{hit.field} {hit.kind}: {where}", negatives)
        yield hit


def rules(near: float) -> dict[str, Any]:
    """Return the parameters of a check, as JSON values."""
    return {
        "normalised": "NFKC, casefold, words",
        "contained_words": CONTAINED_WORDS,
        "near_jaccard": near,
        "shingle_words": SHINGLE,
        "language": detection_method(),
    }


def make_records(
    reports: Sequence[SourceReport], suites: Sequence[SuiteTexts], near: float
) -> list[ContaminationRecord]:
    """Return one record for each source and suite."""
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return [
        ContaminationRecord(
            source=report.name,
            content_hash=report.content_hash,
            rows=len(report.rows),
            suite=suite.name,
            suite_fingerprint=suite.fingerprint,
            queries=len(suite.query_ids),
            documents=len(suite.documents),
            found=found.table(),
            touched_queries=touched,
            found_queries=len(found.ids("query")),
            found_documents=len(found.ids("document")),
            rules=rules(near),
            created=created,
        )
        for report in reports
        for suite, found, touched in zip(suites, report.found, report.touched, strict=True)
    ]
