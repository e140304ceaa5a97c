"""What to leave out of training data: lists that a check writes and training reads, and cleaned copies.

A list is JSONL, one object for each row at fault: `source`, `row` (from 1), `key` (of the row's contents), `drop` and
`reasons`. `drop` is "row", "copies" (all but the first row of these contents) or the places of negatives. Rows are
found again by their key, so that a list stays right when rows are added, moved or left out.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gemma4vec.data.check import Fault, SourceReport
from gemma4vec.data.jsonl import read_lines, write_lines
from gemma4vec.data.rows import Row, content_hash, write_rows
from gemma4vec.errors import InputError

ROW, COPIES = "row", "copies"


@dataclass(frozen=True)
class Drop:
    """What to leave out of rows with one key: all of them, all but the first, or these negatives."""

    whole: bool = False
    copies: bool = False
    negatives: frozenset[int] = frozenset()


Drops = Mapping[str, Drop]
"""Key of a row -> what to leave out."""


def row_key(row: Row) -> str:
    """What a row is known by: 64 bits of its contents' hash."""
    return content_hash([row])[:16]


def write_drops(path: Path, reports: Sequence[SourceReport]) -> int:
    """Write the list of all sources' faults; gives how many rows it names.

    Raises:
        WorkError: the disk is full or the folder cannot be written.
    """
    entries = [entry for report in reports for entry in _entries(report)]
    write_lines(path, entries)
    return len(entries)


def read_drops(path: Path) -> Drops:
    """Read a list back.

    Raises:
        InputError: the file cannot be read or a line is no entry; names the line.
    """
    drops: dict[str, Drop] = {}
    for number, value, reason in read_lines(path):
        entry = value or {}
        key, what = entry.get("key"), entry.get("drop")
        places = isinstance(what, list) and all(type(place) is int and place >= 0 for place in what)
        if not isinstance(key, str) or not (what in (ROW, COPIES) or places):
            wrong = reason or 'an object with "key" and "drop" ("row", "copies" or a list of places) is needed'
            raise InputError(f"{path} line {number}: {wrong}; make the list again with gemma4vec data check --drop")
        known = drops.get(key, Drop())
        drops[key] = Drop(
            known.whole or what == ROW,
            known.copies or what == COPIES,
            known.negatives | frozenset(what if isinstance(what, list) else ()),
        )
    return drops


def apply_drops(rows: Iterable[Row], drops: Drops) -> Iterator[Row]:
    """The rows that are left, some of them with fewer negatives."""
    seen: set[str] = set()
    for row in rows:
        key = row_key(row)
        drop = drops.get(key)
        if drop is None:
            yield row
        elif not drop.whole and not (drop.copies and key in seen):
            seen.add(key)
            yield _without(row, drop.negatives)


def without_faults(rows: Iterable[Row], faults: Mapping[int, Fault]) -> Iterator[Row]:
    """The rows (counted from 1) without those at fault and without the negatives at fault."""
    for number, row in enumerate(rows, start=1):
        fault = faults.get(number)
        if fault is None:
            yield row
        elif not (fault.whole or fault.copy):
            yield _without(row, fault.negatives)


def write_clean(folder: Path, reports: Sequence[SourceReport]) -> dict[str, int]:
    """Write each source without its faults as `folder/<name>.jsonl.gz`; gives how many rows each has left.

    Raises:
        WorkError: the disk is full or the folder cannot be written.
    """
    kept = {}
    for report in reports:
        rows = list(without_faults(report.rows, report.faults))
        write_rows(folder / f"{report.name}.jsonl.gz", rows)
        kept[report.name] = len(rows)
    return kept


def _entries(report: SourceReport) -> Iterator[dict[str, Any]]:
    first: dict[str, int] = {}
    if any(fault.copy for fault in report.faults.values()):
        for number, row in enumerate(report.rows, start=1):
            first.setdefault(row_key(row), number)
    for number, fault in sorted(report.faults.items()):
        key = row_key(report.rows[number - 1])
        # A copy in other letters, or with other negatives, has a key of its own: all rows of that key may go.
        copies = fault.copy and not fault.whole and first.get(key) != number
        drop = COPIES if copies else ROW if fault.whole or fault.copy else sorted(fault.negatives)
        yield {"source": report.name, "row": number, "key": key, "drop": drop, "reasons": fault.reasons}


def _without(row: Row, places: Iterable[int]) -> Row:
    left_out = set(places)
    return replace(row, neg=[document for place, document in enumerate(row.neg) if place not in left_out])
