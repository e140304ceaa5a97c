"""Build the data source `documents`: pairs and a test from a person's own folder, without labels.

The folder contains

    train.jsonl.gz       rows with hard negatives mined by BM25
    test/                a suite of the person's own queries, or of held-out documents
    sections.jsonl.gz    every section, for search
    files.jsonl.gz       the files that were read, with sizes and times
    manifest.json        counts, what was left out and why, settings, content_hash
"""

import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemma4vec.data.documents.document_rows import FORMAT, Settings, make_rows
from gemma4vec.data.documents.folder_files import DocumentFile, LeftOut, find_document_files, hash_document_files
from gemma4vec.data.documents.held_out_queries import make_held_out_suite
from gemma4vec.data.documents.hold_out import DocumentSplit, split_documents, without_near_duplicates
from gemma4vec.data.documents.own_queries import read_own_queries
from gemma4vec.data.documents.pairs import Pair, make_pairs
from gemma4vec.data.documents.read_sections import count_kinds, missing_reader, read_sections, took_too_long
from gemma4vec.data.documents.section import Section, section_from_value
from gemma4vec.data.rows.jsonl import read_lines, write_lines
from gemma4vec.data.rows.rows import Row, content_hash, write_rows
from gemma4vec.data.suites.retrieval import RetrievalSuite, write_suite
from gemma4vec.errors import InputError
from gemma4vec.files import atomic_folder, home, sha256_text, write_json
from gemma4vec.machine.terminal import ProgressBar
from gemma4vec.reading.json_values import load_own_json
from gemma4vec.reading.names import as_name

logger = logging.getLogger(__name__)

FEW_TEST_QUERIES = 100
COMPRESSION = 1


@dataclass(frozen=True)
class DocumentData:
    """A built folder; `manifest` is its manifest.json."""

    path: Path
    manifest: dict[str, Any]

    @property
    def train(self) -> Path:
        """Rows to train on."""
        return self.path / "train.jsonl.gz"

    @property
    def test(self) -> Path:
        """The test suite."""
        return self.path / "test"

    @property
    def content_hash(self) -> str:
        """Hash of rows, suite and sections."""
        return str(self.manifest["content_hash"])

    @property
    def warnings(self) -> list[str]:
        """What a person must know: files left out, answers not found, few queries."""
        return list(self.manifest["warnings"])

    def sections(self) -> list[Section]:
        """All sections, by file.

        Raises:
            InputError: the file is damaged.
        """
        return _read_sections(self.path / "sections.jsonl.gz")

    def training_sections(self) -> list[Section]:
        """The sections that rows are made of: none that is held out, no near-duplicate.

        Raises:
            InputError: the file is damaged.
        """
        sections, split = self.sections(), self.manifest["split"]
        held_out = set(split["test"])
        kept = [sections[place] for place in without_near_duplicates(sections)]
        return [one for one in kept if (one.path if split["unit"] == "file" else one.unit) not in held_out]


def load_or_build_documents(folder: Path, settings: Settings | None = None, data: Path | None = None) -> DocumentData:
    """Return the data of a folder in its present state, below `data` (by default `HOME/data`); build it if missing.

    The name has hashes of the folder's path, and of the files' names, sizes and times: a changed file leads to another
    folder. Sections of files that have not changed are taken from the last one.

    Raises:
        InputError: no such folder, no readable document, or no query of the test has an answer.
        WorkError: the disk is full.
    """
    settings = settings or Settings()
    if settings.queries is not None and not settings.queries.is_file():
        raise InputError(f"{settings.queries}: no such file; name a file of your queries")
    data = home() / "data" if data is None else Path(data)
    left_out = LeftOut()
    files = find_document_files(folder, left_out)
    if settings.queries is not None:  # the test would be a document that is trained on
        own = settings.queries.resolve()
        if own_file := next((file for file in files if folder.resolve() / file.path == own), None):
            files.remove(own_file)
            left_out.add("the file of queries", own_file.path)
    _refuse_nothing(folder, files, left_out)
    stem = _stem(folder)
    readers = json.dumps(sorted({missing for file in files if (missing := missing_reader(file.kind))}))
    out = data / f"{stem}-{hash_document_files(files, settings.as_json(), readers)[:16]}"
    if (out / "manifest.json").is_file():
        return load_documents(out)
    return _build(out, folder, files, settings, left_out, _known_sections(data, stem, files))


def current_sections(folder: Path, data: Path | None = None) -> tuple[str, Callable[[], list[Section]]]:
    """Return a hash of the folder's present state, and a function that reads its sections: only files that changed.

    Raises:
        InputError: no such folder, or no readable document.
    """
    left_out = LeftOut()
    files = find_document_files(folder, left_out)
    _refuse_nothing(folder, files, left_out)
    data = home() / "data" if data is None else Path(data)

    def read() -> list[Section]:
        known = _known_sections(data, _stem(folder), files)
        with ProgressBar("reading documents", "files") as bar:
            return read_sections(folder.resolve(), files, left_out, known=known, progress=bar)

    return hash_document_files(files), read


def _stem(folder: Path) -> str:
    return f"documents-{sha256_text(str(folder.resolve()))[:8]}"


def load_documents(path: Path) -> DocumentData:
    """Open a built folder.

    Raises:
        InputError: it has no readable manifest.
    """
    try:
        return DocumentData(Path(path), load_own_json(Path(path) / "manifest.json"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a folder that was built from documents ({error}); build it again") from error


def _refuse_nothing(folder: Path, files: Sequence[DocumentFile], left_out: LeftOut) -> None:
    if files:
        return
    seen = "; ".join(left_out.lines()[:3]) or "it is empty"
    raise InputError(
        f"{folder}: no document that can be read ({seen}); Markdown, HTML, reStructuredText, text, notebooks, PDF and "
        "code are"
    )


def _build(
    out: Path,
    folder: Path,
    files: Sequence[DocumentFile],
    settings: Settings,
    left_out: LeftOut,
    known: dict[DocumentFile, list[Section]],
) -> DocumentData:
    with ProgressBar("reading documents", "files") as bar:
        sections = read_sections(folder.resolve(), files, left_out, known=known, progress=bar)
    if not sections:
        raise InputError(f"{folder}: no document has text that can be read: {'; '.join(left_out.lines())}")
    kept = without_near_duplicates(sections)
    pairs = make_pairs(sections, kept, sentences_each=settings.sentences)
    split = split_documents(sections, kept, pairs, hold_out=settings.queries is None)
    suite, warnings = _make_test(folder, sections, pairs, split, settings)
    rows = make_rows(sections, pairs, split, settings)
    if not rows:
        raise InputError(
            f"{folder}: {len(sections):,} sections, but none has a heading or a sentence to train on; use a folder "
            "with more text"
        )
    if len(suite.queries) < FEW_TEST_QUERIES:
        warnings.append(f"only {len(suite.queries)} test queries: large differences can be chance")
    manifest = {
        "format": FORMAT,
        "content_hash": sha256_text(content_hash(rows), suite.fingerprint, *map(repr, sections)),
        "folder": str(folder.resolve()),
        "test": "own queries" if settings.queries is not None else "held-out documents",
        "counts": _counts(sections, pairs, split, suite, rows, files),
        "left_out": left_out.counts(),
        "took_too_long": left_out.reasons.get(took_too_long(), []),
        "warnings": [*left_out.lines(), *warnings],
        "split": {"unit": split.unit, "test": split.held_out},
    }
    with atomic_folder(out) as made:
        write_rows(made / "train.jsonl.gz", rows, COMPRESSION)
        write_suite(made / "test", suite)
        write_lines(made / "sections.jsonl.gz", (section._asdict() for section in sections), COMPRESSION)
        write_lines(made / "files.jsonl.gz", (file._asdict() for file in files), COMPRESSION)
        write_json(made / "manifest.json", manifest)
    return load_documents(out)


def _make_test(
    folder: Path, sections: Sequence[Section], pairs: Sequence[Pair], split: DocumentSplit, settings: Settings
) -> tuple[RetrievalSuite, list[str]]:
    """The test suite, and what a person must know about it."""
    name = as_name(folder.resolve().name)
    if settings.queries is not None:
        own = read_own_queries(settings.queries, sections, f"{name}-own-queries")
        return own.suite, own.warnings()
    suite = make_held_out_suite(f"{name}-held-out-documents", sections, pairs, split.test)
    if not suite.queries:
        raise InputError(
            f"{folder}: too little text to hold some of it out for a test ({len(sections):,} sections); use a folder "
            "with more, or give your own queries"
        )
    return suite, []


def _counts(
    sections: Sequence[Section],
    pairs: Sequence[Pair],
    split: DocumentSplit,
    suite: RetrievalSuite,
    rows: Sequence[Row],
    files: Sequence[DocumentFile],
) -> dict[str, Any]:
    return {
        "files": count_kinds(files),
        "sections": len(sections),
        "near_duplicates": len(sections) - len(split.test) - len(split.train),
        "pairs": dict(Counter(pair.kind for pair in pairs)),
        "train_rows": len(rows),
        "train_rows_by_kind": dict(Counter(row.task for row in rows)),
        "train_negatives": sum(len(row.neg) for row in rows),
        "test_documents": len(suite.corpus),
        "test_queries": len(suite.queries),
    }


def _known_sections(data: Path, stem: str, files: Sequence[DocumentFile]) -> dict[DocumentFile, list[Section]]:
    """The sections of files that have not changed since the folder was read last; none for one that took too long."""
    built = [path for path in data.glob(f"{stem}-*") if (path / "manifest.json").is_file()]
    if not built:
        return {}
    last = max(built, key=lambda path: (path / "manifest.json").stat().st_mtime_ns)
    try:
        manifest = load_documents(last).manifest
        if manifest["format"] != FORMAT:
            return {}
        read = [DocumentFile(**value) for _, value, _ in read_lines(last / "files.jsonl.gz") if value is not None]
        same = {file.path: file for file in set(read) & set(files)}
        known: dict[DocumentFile, list[Section]] = {
            same[path]: [] for path in manifest.get("took_too_long", []) if path in same
        }
        for section in _read_sections(last / "sections.jsonl.gz"):
            if section.path in same:
                known.setdefault(same[section.path], []).append(section)
        return known
    except (InputError, TypeError, KeyError) as error:
        logger.info(f"{last}: {error}; all documents are read again")
        return {}


def _read_sections(path: Path) -> list[Section]:
    sections = []
    for number, value, reason in read_lines(path):
        if value is None or set(value) != set(Section._fields):
            raise InputError(f"{path} line {number}: {reason or 'not a section'}; build the data again")
        sections.append(section_from_value(value))
    return sections
