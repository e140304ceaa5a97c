"""Contamination records: results of checking training data against suites, stored for training and evaluation.

A record belongs to contents, not to files: its name consists of the hash of a source's rows, which a run's manifest
contains, and the suite's fingerprint. Changed data or a changed suite have no record until they are checked again.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gemma4vec.errors import InputError
from gemma4vec.files import home, sha256_text, write_json
from gemma4vec.reading.json_values import load_own_json

FORMAT = 1


@dataclass(frozen=True)
class ContaminationRecord:
    """The overlap of one source with one suite.

    Attributes:
        source, content_hash, rows: the training data and its number of rows.
        suite, suite_fingerprint: the suite that it was checked against.
        queries, documents: the suite's numbers of queries and documents.
        found: rows of `contamination.SuiteOverlap.table`.
        touched_queries: ids of queries that overlap or have a relevant document that does.
        found_queries, found_documents: numbers of the suite's texts that overlap.
        rules: parameters of the check.
        created: time of the check, ISO 8601.
    """

    source: str
    content_hash: str
    rows: int
    suite: str
    suite_fingerprint: str
    queries: int
    documents: int
    found: list[dict[str, Any]]
    touched_queries: list[str]
    found_queries: int
    found_documents: int
    rules: dict[str, Any]
    created: str

    @property
    def overlaps(self) -> bool:
        """Whether anything was found."""
        return bool(self.found_queries or self.found_documents)

    def summary(self) -> dict[str, Any]:
        """Return the record as JSON values, with the number of touched queries in place of their ids."""
        return {**asdict(self), "touched_queries": len(self.touched_queries)}


def folder() -> Path:
    """Return the folder of the records, HOME/checks."""
    return home() / "checks"


def write_record(record: ContaminationRecord) -> Path:
    """Store a record, replacing an earlier one of the same contents; return its file.

    Raises:
        WorkError: the folder cannot be written.
    """
    file = _file(record.content_hash, record.suite_fingerprint)
    write_json(file, {"format": FORMAT, **asdict(record)})
    return file


def read_record(content_hash: str, suite_fingerprint: str) -> ContaminationRecord | None:
    """Return the record of these contents, or None if they were never checked.

    Raises:
        InputError: the file is damaged.
    """
    file = _file(content_hash, suite_fingerprint)
    if not file.is_file():
        return None
    try:
        value = load_own_json(file)
        if value.pop("format") != FORMAT:
            return None
        return ContaminationRecord(**value)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{file} is damaged ({error}); remove it and check again with gemma4vec data check") from error


def read_records_of_source(content_hash: str) -> list[ContaminationRecord]:
    """Return all records of one source's rows, ordered by suite.

    Raises:
        InputError: as `read_record`.
    """
    files = sorted(folder().glob(f"{_short(content_hash)}-*.json"))
    found = [read_record(content_hash, file.stem.partition("-")[2]) for file in files]
    return sorted((record for record in found if record is not None), key=lambda record: record.suite)


def sources_from_manifest(manifest: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return content hash -> source for all stages of a run."""
    stages = manifest.get("data") or {}
    return {
        str(source["content_hash"]): {"name": name, **source}
        for stage in stages.values()
        for name, source in stage.items()
        if isinstance(source, dict) and source.get("content_hash")
    }


def _file(content_hash: str, suite_fingerprint: str) -> Path:
    return folder() / f"{_short(content_hash)}-{suite_fingerprint[:16]}.json"


def _short(content_hash: str) -> str:
    """Hash the whole content hash to 16 digits; a prefix would ignore the row count that ends some content hashes."""
    return sha256_text(content_hash)[:16]
