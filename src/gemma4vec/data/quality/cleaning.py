"""Leave out the faults that a check found: as a list for training, or as cleaned copies."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gemma4vec.data.quality.check import RowFault, SourceReport
from gemma4vec.data.rows.jsonl import write_lines
from gemma4vec.data.rows.rows import Row, write_rows
from gemma4vec.data.sources.drops import COPIES, ROW, row_key, without_negatives


def write_drops(path: Path, reports: Sequence[SourceReport]) -> int:
    """Write the list of all sources' faults; return the number of rows in it.

    Raises:
        WorkError: the disk is full or the folder cannot be written.
    """
    entries = [entry for report in reports for entry in _entries(report)]
    write_lines(path, entries)
    return len(entries)


def remove_faults(rows: Iterable[Row], faults: Mapping[int, RowFault]) -> Iterator[Row]:
    """Yield the rows (numbered from 1) without faulty rows and faulty negatives."""
    for number, row in enumerate(rows, start=1):
        fault = faults.get(number)
        if fault is None:
            yield row
        elif not (fault.whole or fault.copy):
            yield without_negatives(row, fault.negatives)


def write_clean(folder: Path, reports: Sequence[SourceReport]) -> dict[str, int]:
    """Write each source without its faults as `folder/<name>.jsonl.gz`; return the number of rows left in each.

    Raises:
        WorkError: the disk is full or the folder cannot be written.
    """
    kept = {}
    for report in reports:
        whole = sum(fault.whole or fault.copy for fault in report.faults.values())
        kept[report.name] = len(report.rows) - whole
        write_rows(folder / f"{report.name}.jsonl.gz", remove_faults(report.rows, report.faults))
    return kept


def _entries(report: SourceReport) -> Iterator[dict[str, Any]]:
    copies = {row_key(report.rows[number - 1]) for number, fault in report.faults.items() if fault.copy}
    first: dict[str, int] = {}
    for number, row in enumerate(report.rows if copies else (), start=1):
        if (key := row_key(row)) in copies:
            first.setdefault(key, number)
    for number, fault in sorted(report.faults.items()):
        key = row_key(report.rows[number - 1])
        # A copy with other negatives, or in another case, has another key, so all rows of that key can go.
        later = fault.copy and not fault.whole and first.get(key) != number
        drop = COPIES if later else ROW if fault.whole or fault.copy else sorted(fault.negatives)
        yield {"source": report.name, "row": number, "key": key, "drop": drop, "reasons": fault.reasons}
