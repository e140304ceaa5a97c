"""Training rows from the relevance judgments of a folder in BEIR's layout (Thakur et al., 2021)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gemma4vec.data.rows.jsonl import read_lines
from gemma4vec.data.rows.judgments import read_judgments
from gemma4vec.data.rows.records import Record
from gemma4vec.errors import InputError


def beir_files(folder: Path, split: str) -> tuple[Path, Path, Path]:
    """The corpus, queries and judgments files of a folder.

    Raises:
        InputError: one of them is missing.
    """
    found = []
    for name in ("corpus.jsonl", "queries.jsonl", f"qrels/{split}.tsv"):
        file = next((file for file in (folder / name, folder / f"{name}.gz") if file.is_file()), None)
        if file is None:
            splits = sorted(file.stem for file in (folder / "qrels").glob("*.tsv"))
            hint = f"; the folder has judgments of {', '.join(splits)}: set the source's split" if splits else ""
            raise InputError(f"{folder / name}: missing{hint if name.startswith('qrels') else ''}")
        found.append(file)
    corpus, queries, qrels = found
    return corpus, queries, qrels


def beir_records(folder: Path, split: str) -> Iterator[Record]:
    """One record for each query with a positive, in the order of the judgments.

    Documents judged 1 or higher are positives, documents judged 0 are negatives. Only judged documents are held in
    memory.

    Raises:
        InputError: a file is missing or malformed.
    """
    corpus, queries, qrels = beir_files(folder, split)
    judged = _judgments(qrels)
    documents = _texts(corpus, {key for _, grades in judged.values() for key in grades})
    questions = _texts(queries, set(judged))
    for query, (line, grades) in judged.items():
        positive = [key for key, grade in grades.items() if grade >= 1]
        if not positive:
            continue
        unknown = next((key for key in grades if key not in documents), None)
        if query not in questions or unknown is not None:
            where, key = (queries.name, query) if query not in questions else (corpus.name, unknown)
            yield Record(str(qrels), line, None, f"names {repr(key)[:60]}, which is not in {where}")
            continue
        yield Record(
            str(qrels),
            line,
            {
                "query": questions[query]["text"],
                "pos": [documents[key] for key in positive],
                "neg": [documents[key] for key, grade in grades.items() if grade < 1],
            },
        )


def _judgments(path: Path) -> dict[str, tuple[int, dict[str, int]]]:
    """Query id -> (line of its first judgment, document id -> grade)."""
    judged: dict[str, tuple[int, dict[str, int]]] = {}
    for line, query, document, grade in read_judgments(path, header=False):
        grades = judged.setdefault(query, (line, {}))[1]
        if grades.setdefault(document, grade) != grade:
            raise InputError(
                f"{path} line {line}: query {query!r} and document {document!r} are judged twice, with different scores"
            )
    if not judged:
        raise InputError(f"{path}: no judgments; the file needs a header line and at least one judgment")
    return judged


def _texts(path: Path, wanted: set[str]) -> dict[str, dict[str, Any]]:
    """Id -> text and title of the `wanted` ids."""
    found: dict[str, dict[str, Any]] = {}
    for number, value, reason in read_lines(path):
        if value is None:
            raise InputError(f"{path} line {number}: {reason}")
        key = str(value.get("_id"))
        if key in wanted:
            found[key] = {"text": value.get("text"), "title": value.get("title") or None}
    return found
