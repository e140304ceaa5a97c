"""Open a suite of the catalog from the hub's tables, with the checks of a suite folder; record its source."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from gemma4vec.data.rows.jsonl import json_type
from gemma4vec.data.rows.judgments import parse_grade, parse_id
from gemma4vec.data.rows.rows import clean_text, clean_title
from gemma4vec.data.suites.catalog import CatalogSuite, HubTask
from gemma4vec.data.suites.group import AnySuite, OneSuite, make_group
from gemma4vec.data.suites.hub_tables import DatasetFolder, fetch_dataset, read_table
from gemma4vec.data.suites.retrieval import RetrievalSuite, make_suite
from gemma4vec.data.suites.sample import sample_suite
from gemma4vec.data.suites.sts import StsSuite, make_sts, parse_score
from gemma4vec.errors import InputError
from gemma4vec.text.prompts import Document


def open_catalog_suite(known: CatalogSuite, *, mirror: Path | None) -> AnySuite:
    """Open a catalog suite; several tasks become a group.

    Raises:
        InputError: a data set is not available, or its tables do not match its layout.
    """
    members = [replace(_open_task(task, mirror), role=known.role) for task in known.tasks]
    if len(members) == 1:
        return replace(members[0], name=known.name)
    return make_group(known.name, members)


def _open_task(task: HubTask, mirror: Path | None) -> OneSuite:
    prefix = f"{task.language}-" if task.language else ""
    configs = ["default"] if task.layout == "sts" else [f"{prefix}{table}" for table in ("corpus", "queries")]
    folder = fetch_dataset(task.repository, task.revision, configs, mirror=mirror)
    source = {
        "dataset": task.repository,
        "revision": task.revision,
        "resolved_revision": folder.revision,
        "split": task.split,
    }
    suite = _open_sts(task, folder) if task.layout == "sts" else _open_retrieval(task, folder, prefix)
    return replace(suite, source=source)


def _open_sts(task: HubTask, folder: DatasetFolder) -> StsSuite:
    rows = read_table(folder.path, "default", task.split)
    _require_columns(rows, {"sentence1", "sentence2", "score"}, folder)
    where = [f"{folder.path}: row {number} of {task.split}" for number in range(1, len(rows) + 1)]
    return make_sts(
        task.name,
        [f"{task.split}-{number}" for number in range(1, len(rows) + 1)],
        [
            (_text(row, "sentence1", place), _text(row, "sentence2", place))
            for row, place in zip(rows, where, strict=True)
        ],
        [parse_score(row.get("score"), place) for row, place in zip(rows, where, strict=True)],
        str(folder.path),
    )


def _open_retrieval(task: HubTask, folder: DatasetFolder, prefix: str) -> RetrievalSuite:
    counts: Counter[str] = Counter(empty=0, overlong=0, control=0)
    corpus = _parse_texts(read_table(folder.path, f"{prefix}corpus", task.split), folder, counts)
    queries = _parse_texts(read_table(folder.path, f"{prefix}queries", task.split), folder, counts)
    qrels: dict[str, dict[str, int]] = {}
    for number, row in enumerate(_read_judgments(task, folder, prefix), start=1):
        where = f"{folder.path}: row {number} of the judgments"
        query, relevant = parse_id(row.get("query-id"), f"{where}, field 'query-id'"), row.get("corpus-id")
        for given in relevant if isinstance(relevant, list) else [relevant]:  # some data sets have a list of ids here
            document = parse_id(given, f"{where}, field 'corpus-id'")
            judged = qrels.setdefault(query, {})
            if document in judged:
                raise InputError(f"{where}: {query!r} and {document!r} are judged twice")
            judged[document] = parse_grade(row.get("score", 1), where)
    suite = make_suite(task.name, corpus, queries, qrels, {}, counts, str(folder.path))
    if task.queries is None and task.documents is None:
        return suite
    return replace(sample_suite(suite, task.queries, task.documents), kind="compact-retrieval")


def _read_judgments(task: HubTask, folder: DatasetFolder, prefix: str) -> list[dict[str, Any]]:
    """Read the table of judgments: `qrels`, or `default` as in mteb's own data sets."""
    names = [f"{prefix}qrels"] if prefix else ["qrels", "default"]
    for name in names[:-1]:
        try:
            rows = read_table(folder.path, name, task.split)
            break
        except InputError:
            continue
    else:
        rows = read_table(folder.path, names[-1], task.split)
    _require_columns(rows, {"query-id", "corpus-id"}, folder)
    return rows


def _parse_texts(rows: list[dict[str, Any]], folder: DatasetFolder, counts: Counter[str]) -> dict[str, Document]:
    """Return id -> document; the column of ids is `_id` or `id`."""
    key = "_id" if rows and "_id" in rows[0] else "id"
    _require_columns(rows, {key, "text"}, folder)
    read: dict[str, Document] = {}
    for number, row in enumerate(rows, start=1):
        where = f"{folder.path}: row {number} of the texts"
        name = parse_id(row.get(key), f"{where}, field {key!r}")
        if name in read:
            raise InputError(f"{where}, field {key!r}: {name!r} occurs twice; ids must be unique")
        text = "" if row.get("text") is None else _text(row, "text", where)
        title = None if row.get("title") is None else _text(row, "title", where)
        read[name] = Document(clean_text(text, counts), clean_title(title))
    return read


def _text(row: dict[str, Any], column: str, where: str) -> str:
    value = row.get(column)
    if not isinstance(value, str):
        raise InputError(f"{where}, field {column!r}: a string is needed, not {json_type(value)}")
    return value


def _require_columns(rows: list[dict[str, Any]], columns: set[str], folder: DatasetFolder) -> None:
    """Refuse a table that is empty or lacks a column."""
    missing = columns - set(rows[0] if rows else [])
    if missing:
        raise InputError(
            f"{folder.path}: a table {'is empty' if not rows else 'lacks ' + ', '.join(sorted(missing))}; "
            "check that this is the intended data set"
        )
