"""Check training data: against suites, and on its own. One pass over each source."""

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

REASONS = 5  # kept of each row


@dataclass
class RowFault:
    """Why a row (`whole`, or `copy` of an earlier one), or some of its negatives, should be left out."""

    whole: bool = False
    copy: bool = False
    negatives: set[int] = field(default_factory=set)
    reasons: list[str] = field(default_factory=list)

    def add(self, reason: str, negatives: Sequence[int] = ()) -> None:
        """One more reason: for the row, or for these negatives alone."""
        self.copy |= reason == "duplicate"
        self.whole |= reason != "duplicate" and not negatives
        self.negatives.update(negatives)
        if reason not in self.reasons and len(self.reasons) < REASONS:
            self.reasons.append(reason)


@dataclass
class SourceReport:
    """What was found in one source.

    Attributes:
        rows: of the source, in order; `faults` counts them from 1.
        bad_rows: that could not be read at all.
        counts: of texts, as `rows.RowsRead`.
        flaws: kind -> how many rows; `flaw_examples` a few of each.
        cut: see `flaws.FlawFinder.cut`.
        found: for each suite.
        touched: for each suite, the ids of its touched queries.
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
        sources: of rows; bad rows are counted, however many there are.
        suites: may be none, then only the rows themselves are checked.
        near: least Jaccard similarity of a near match, above 0.5.
        languages: ISO 639 codes; a row clearly in another language is a fault. None given: none is.

    Raises:
        InputError: a source that cannot be read or has no row; `near` is no similarity that MinHash finds.
    """
    if not 0.5 <= near <= 1:
        raise InputError(
            f"--near {near}: a Jaccard similarity from 0.5 (below it MinHash would miss pairs) to 1 is needed"
        )
    if suites:
        texts = sum(len(suite.documents) + len(suite.queries) for suite in suites)
        logger.info(f"indexing {texts:,} texts of {len(suites)} suites")
    index = ContaminationIndex(suites, near)
    return [_check(source, index, languages) for source in sources]


def _check(source: Source, index: ContaminationIndex, languages: Sequence[str]) -> SourceReport:
    rows, told = load_source(source.model_copy(update={"max_bad_share": 1.0}))
    logger.info(f"checking {len(rows):,} rows of {source.name}")
    finder = FlawFinder(make_detector() if languages else None, languages)
    faults: dict[int, RowFault] = {}
    for row in rows:
        for flaw in finder.look(row):
            _note_flaw(flaw, faults)
    found = collect_overlaps(_noted(index.hits(rows), index, faults), len(index.suites), source.name)
    return SourceReport(
        name=source.name,
        content_hash=told["content_hash"],
        rows=rows,
        bad_rows=told["bad_rows"],
        counts=told["counts"],
        flaws=dict(finder.counts),
        flaw_examples=finder.examples,
        cut=finder.cut(),
        found=found,
        touched=[index.touched(number, one) for number, one in enumerate(found)],
        faults=faults,
    )


def _note_flaw(flaw: Flaw, faults: dict[int, RowFault]) -> None:
    if flaw.kind in DROPPED:
        faults.setdefault(flaw.row, RowFault()).add(flaw.kind, flaw.negatives)


def _noted(hits: Iterator[Hit], index: ContaminationIndex, faults: dict[int, RowFault]) -> Iterator[Hit]:
    """The hits, each also noted as a fault of its row or, where it is one, of its negative."""
    for hit in hits:
        where = f"{index.suites[hit.item.suite].name} {hit.item.side} {hit.item.id}"
        negatives = (hit.place,) if hit.field == "negative" else ()
        faults.setdefault(hit.row, RowFault()).add(f"{hit.field} {hit.kind}: {where}", negatives)
        yield hit


def rules(near: float) -> dict[str, Any]:
    """The parameters that a check depends on, as JSON values."""
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
    """One stamp for each source and suite."""
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
