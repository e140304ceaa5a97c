"""Build the data source `pycode`: real pairs from the Python code on this machine, with held-out packages for testing.

A pair is a docstring's first sentence and its function without the docstring, as in CodeSearchNet (Husain et al.,
2019). The folder contains

    train.jsonl.gz       rows with hard negatives mined by BM25
    test/, dev/          suites (no dev if there is too little code)
    functions.jsonl.gz   every kept function, for search: id, package, path, line, name, source, query
    manifest.json        counts, reasons, versions, the split and its rules, content_hash
"""

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemma4vec.data.mining.bm25_negatives import mine_bm25
from gemma4vec.data.pycode.extract import Extraction, Function
from gemma4vec.data.pycode.rules import FORMAT, RULES
from gemma4vec.data.pycode.split import HELD_OUT, Split, sort_by_hash, split_environment, split_folder
from gemma4vec.data.pycode.walk import (
    SourceFile,
    find_environment_files,
    find_folder_files,
    hash_files,
    installed_versions,
)
from gemma4vec.data.pycode.worker import extract_files
from gemma4vec.data.rows.jsonl import read_lines, write_lines
from gemma4vec.data.rows.rows import Row, content_hash, write_rows
from gemma4vec.data.suites.retrieval import RetrievalSuite, write_suite
from gemma4vec.errors import InputError
from gemma4vec.files import atomic_folder, home, sha256_text, write_json
from gemma4vec.reading.json_values import load_own_json
from gemma4vec.retrieval.tokenize import tokenize_code
from gemma4vec.text.prompts import Document

logger = logging.getLogger(__name__)

TEST_QUERIES, FEW_TEST_QUERIES = 1_000, 200
DEV_QUERIES, DEV_DOCUMENTS = 200, 600
COMPRESSION = 1  # level of gzip; higher levels take seconds longer and save a fifth

Progress = Callable[[str], None]


@dataclass(frozen=True)
class PyCode:
    """A built folder; `manifest` is its manifest.json."""

    path: Path
    manifest: dict[str, Any]

    @property
    def train(self) -> Path:
        """Rows to train on (read them with `rows.read_rows`)."""
        return self.path / "train.jsonl.gz"

    @property
    def test(self) -> Path:
        """The suite of held-out code (load it with `retrieval.load_suite`)."""
        return self.path / "test"

    @property
    def dev(self) -> Path | None:
        """The small suite for evaluation during training; None if there was too little code."""
        return self.path / "dev" if self.manifest["counts"]["dev_queries"] else None

    @property
    def functions(self) -> Path:
        """All kept functions (read them with `read_functions`)."""
        return self.path / "functions.jsonl.gz"

    @property
    def content_hash(self) -> str:
        """Hash of rows, suites and functions; the same for the same packages on any machine."""
        return str(self.manifest["content_hash"])


def read_functions(path: Path) -> list[Function]:
    """Read the functions of a `functions.jsonl.gz`.

    Raises:
        InputError: the file is missing or damaged.
    """
    functions = []
    for number, value, reason in read_lines(path):
        if value is None or set(value) != set(Function._fields):
            raise InputError(f"{path} line {number}: {reason or 'not a function'}; build the data again")
        functions.append(Function(**value))
    return functions


def build_pycode(
    out: Path,
    *,
    folder: Path | None = None,
    held_out: Sequence[str] | None = None,
    negatives: int = 4,
    processes: int | None = None,
) -> PyCode:
    """Extract, split, mine and write; replace `out` only when everything is written.

    Args:
        out: folder to write.
        folder: code to read; by default the running environment (standard library and installed packages).
        held_out: packages to test on; by default `HELD_OUT` of the environment, or a fifth of a folder's pairs.
        negatives: number of hard negatives per training row.
        processes: number of processes that read files; the result does not depend on it.

    Raises:
        InputError: there are no Python files, or no held-out function has a query.
        WorkError: the disk is full, or a worker died.
    """
    files = find_environment_files() if folder is None else find_folder_files(Path(folder))
    return _build(Path(out), files, folder, held_out, negatives, processes)


def load_or_build_pycode(
    data: Path | None = None,
    *,
    folder: Path | None = None,
    held_out: Sequence[str] | None = None,
    negatives: int = 4,
) -> PyCode:
    """Return the folder for the code in its present state, below `data` (by default `HOME/data`); build it if missing.

    The folder's name contains a hash of the files' names, sizes and times and of the installed versions, so installing,
    updating or editing a package leads to another folder.

    Raises:
        InputError, WorkError: as `build_pycode`.
    """
    out, files = locate_pycode(data, folder=folder, held_out=held_out, negatives=negatives)
    if (out / "manifest.json").is_file():
        return load_pycode(out)
    return _build(out, files, folder, held_out, negatives, None)


def locate_pycode(
    data: Path | None = None,
    *,
    folder: Path | None = None,
    held_out: Sequence[str] | None = None,
    negatives: int = 4,
) -> tuple[Path, list[SourceFile]]:
    """(the folder for the code in its present state, the files that it is built from); it need not be built yet.

    Raises:
        InputError: there are no Python files.
    """
    data = home() / "data" if data is None else Path(data)
    files = find_environment_files() if folder is None else find_folder_files(Path(folder))
    settings = json.dumps([FORMAT, held_out, negatives, str(folder and Path(folder).resolve())])
    versions = json.dumps(installed_versions()) if folder is None else ""
    return data / f"pycode-{hash_files(files, settings, versions)[:16]}", files


def load_pycode(path: Path) -> PyCode:
    """Open a folder that `build_pycode` wrote.

    Raises:
        InputError: the folder has no readable manifest.
    """
    try:
        manifest = load_own_json(Path(path) / "manifest.json")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a folder from `gemma4vec data pycode` ({error}); build it again") from error
    return PyCode(Path(path), manifest)


def _build(
    out: Path,
    files: list[SourceFile],
    folder: Path | None,
    held_out: Sequence[str] | None,
    negatives: int,
    processes: int | None,
) -> PyCode:
    clock = _Clock()
    logger.info(f"reading Python files: {len(files)}")
    extracted = extract_files(files, processes)
    clock.lap("extract")
    logger.info(f"finding near-duplicates among {len(extracted.functions)} functions")
    split = split_functions(extracted.functions, folder, held_out)
    clock.lap("split")
    test = _make_suite("pycode-test", split.test, split.answers, TEST_QUERIES, None)
    dev = _make_suite("pycode-dev", split.dev, split.answers, DEV_QUERIES, DEV_DOCUMENTS)
    if not test.queries:
        where = "the running environment" if folder is None else str(folder)
        raise InputError(
            f"{where}: no held-out function has a docstring sentence to use as a query; "
            f"hold out other packages than {', '.join(split.test_units) or 'none'}, or use a folder with more code"
        )
    rows = training_rows(split, negatives)
    clock.lap("mine")
    manifest = _make_manifest(extracted, split, test, dev, rows, held_out, folder)
    logger.info("writing")
    with atomic_folder(out) as made:
        write_rows(made / "train.jsonl.gz", rows, COMPRESSION)
        write_suite(made / "test", test)
        if dev.queries:
            write_suite(made / "dev", dev)
        kept = sorted([*split.test, *split.dev, *split.train], key=lambda function: function.id)
        write_lines(made / "functions.jsonl.gz", (function._asdict() for function in kept), COMPRESSION)
        clock.lap("write")
        manifest["seconds"] = clock.laps
        write_json(made / "manifest.json", manifest)
    return load_pycode(out)


def split_functions(functions: Sequence[Function], folder: Path | None, held_out: Sequence[str] | None) -> Split:
    """Split the functions of the environment, or of a folder, into test, dev and train."""
    if folder is None:
        return split_environment(functions, HELD_OUT if held_out is None else held_out)
    return split_folder(functions, held_out)


def training_rows(split: Split, negatives: int) -> list[Row]:
    """Make rows of the functions to train on, with hard negatives mined among them."""
    with_query = [function for function in split.train if function.query]
    rows = [Row(function.query or "", [Document(function.source)], group=function.package) for function in with_query]
    return mine_bm25(rows, [row.pos[0] for row in rows], negatives, tokens=tokenize_code)


class _Clock:
    """Measures the wall time of named phases, in seconds."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name] = round(now - self._last, 2)
        self._last = now


def _make_suite(
    name: str, functions: list[Function], answers: dict[str, list[str]], queries: int, documents: int | None
) -> RetrievalSuite:
    """Make a suite of at most `queries` queries, drawn by hash.

    Its documents are all functions, or the answers and further functions, drawn by hash, up to `documents`.
    """
    sentences = {function.id: function.query for function in functions if function.query}
    known = {function.id for function in functions}
    drawn = sorted(sort_by_hash(sentences)[:queries])
    qrels = {
        key: dict.fromkeys([key, *(other for other in answers.get(key, ()) if other in known)], 1) for key in drawn
    }
    if documents is not None:
        needed = dict.fromkeys(found for judged in qrels.values() for found in judged)
        known = set(list(needed | dict.fromkeys(sort_by_hash(known)))[: max(documents, len(needed))])
    corpus = sorted((function for function in functions if function.id in known), key=lambda function: function.id)
    return RetrievalSuite(
        name=name,
        corpus_ids=[function.id for function in corpus],
        corpus=[Document(function.source) for function in corpus],
        query_ids=drawn,
        queries=[sentences[key] or "" for key in drawn],
        qrels=qrels,
        role="dev",
        code=True,
    )


def _make_manifest(
    extracted: Extraction,
    split: Split,
    test: RetrievalSuite,
    dev: RetrievalSuite,
    rows: list[Row],
    held_out: Sequence[str] | None,
    folder: Path | None,
) -> dict[str, Any]:
    counts = {
        "files": extracted.reasons["files"],
        "functions": extracted.reasons["functions"],
        "kept_functions": len(split.test) + len(split.dev) + len(split.train),
        "pairs": sum(function.query is not None for part in (split.test, split.dev, split.train) for function in part),
        "train_rows": len(rows),
        "train_negatives": sum(len(row.neg) for row in rows),
        "test_documents": len(test.corpus),
        "test_queries": len(test.queries),
        "dev_documents": len(dev.corpus),
        "dev_queries": len(dev.queries),
    }
    reasons = Counter({name: n for name, n in extracted.reasons.items() if name not in ("files", "functions")})
    return {
        "format": FORMAT,
        "content_hash": _hash_contents(split, test, dev, rows),
        "source": "environment" if folder is None else "folder",
        "counts": counts,
        "warnings": _collect_warnings(split, test, dev, held_out, folder),
        "left_out": dict(sorted((reasons + split.reasons).items())),
        "split": {"unit": split.unit, "test": split.test_units, "dev": split.dev_units},
        "packages": _count_packages(split),
        "rules": RULES,
        "versions": installed_versions() if folder is None else {},
    }


def _hash_contents(split: Split, test: RetrievalSuite, dev: RetrievalSuite, rows: list[Row]) -> str:
    kept = sorted([*split.test, *split.dev, *split.train], key=lambda function: function.id)
    functions = sha256_text(*(str(value) for function in kept for value in function))
    return sha256_text(content_hash(rows), test.fingerprint, dev.fingerprint, functions)


def _collect_warnings(
    split: Split, test: RetrievalSuite, dev: RetrievalSuite, held_out: Sequence[str] | None, folder: Path | None
) -> list[str]:
    warnings = []
    missing = sorted(set(HELD_OUT if held_out is None else held_out) - {function.package for function in split.test})
    if missing and (folder is None or held_out is not None):
        remedy = "; install them: pip install 'gemma4vec[quickstart]'" if held_out is None else ""
        warnings.append(f"missing held-out packages: {', '.join(missing)}{remedy}")
    if len(test.queries) < FEW_TEST_QUERIES:
        warnings.append(f"only {len(test.queries)} test queries: differences of several points can be chance")
    if not dev.queries:
        warnings.append("no dev suite: too little code to hold some out")
    return warnings


def _count_packages(split: Split) -> dict[str, dict[str, Any]]:
    """Return package -> numbers of kept functions and pairs, and its parts (several if files are held out)."""
    packages: dict[str, dict[str, Any]] = {}
    for part, functions in (("test", split.test), ("dev", split.dev), ("train", split.train)):
        for function in functions:
            entry = packages.setdefault(function.package, {"functions": 0, "pairs": 0, "parts": []})
            entry["functions"] += 1
            entry["pairs"] += function.query is not None
            if part not in entry["parts"]:
                entry["parts"].append(part)
    return dict(sorted(packages.items()))
