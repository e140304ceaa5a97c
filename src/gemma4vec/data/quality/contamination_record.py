"""Stamps: what a check of training data against a suite found, kept where training and evaluation look it up.

A stamp belongs to contents, not to files: its name is made of the hash of a source's rows (which a run's manifest has)
and the suite's fingerprint. Data or a suite that changed have no stamp until they are checked again.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gemma4vec.errors import InputError
from gemma4vec.files import home, sha256_text, write_json

FORMAT = 1


@dataclass(frozen=True)
class ContaminationRecord:
    """What one source has in common with one suite.

    Attributes:
        source, content_hash, rows: the training data.
        suite, suite_fingerprint: what it was checked against, and how many `queries` and `documents` that has.
        found: rows of `contamination.SuiteOverlap.table`.
        touched_queries: ids of queries that overlap themselves or have a right document that does.
        found_queries, found_documents: how many of the suite's texts overlap.
        rules: parameters of the check.
        created: when, ISO 8601.
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
        """Everything but the ids of the touched queries, of which their number is kept."""
        return {**asdict(self), "touched_queries": len(self.touched_queries)}


def folder() -> Path:
    """Where stamps stand: HOME/checks."""
    return home() / "checks"


def write_record(stamp: ContaminationRecord) -> Path:
    """Keep a stamp; one of the same contents is replaced.

    Raises:
        WorkError: the folder cannot be written.
    """
    file = _file(stamp.content_hash, stamp.suite_fingerprint)
    write_json(file, {"format": FORMAT, **asdict(stamp)})
    return file


def read_record(content_hash: str, suite_fingerprint: str) -> ContaminationRecord | None:
    """The stamp of these contents; None where they were never checked.

    Raises:
        InputError: the file is damaged.
    """
    file = _file(content_hash, suite_fingerprint)
    if not file.is_file():
        return None
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
        if value.pop("format") != FORMAT:
            return None
        return ContaminationRecord(**value)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{file} is damaged ({error}); remove it and check again with gemma4vec data check") from error


def read_records_of_source(content_hash: str) -> list[ContaminationRecord]:
    """All stamps of one source's rows, by suite.

    Raises:
        InputError: as `read_record`.
    """
    files = sorted(folder().glob(f"{_short(content_hash)}-*.json"))
    found = [read_record(content_hash, file.stem.partition("-")[2]) for file in files]
    return sorted((stamp for stamp in found if stamp is not None), key=lambda stamp: stamp.suite)


def sources_from_manifest(manifest: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Content hash -> source, of all stages of a run."""
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
    """16 digits for all of a content hash: that of a large file's first rows ends in their number."""
    return sha256_text(content_hash)[:16]
