"""A suite of 12 queries, half of which BM25 answers."""

from pathlib import Path
from typing import Literal

from gemma4vec.data.suites.retrieval import RetrievalSuite, write_suite
from gemma4vec.text.prompts import Document

WORDS = ["sort", "graph", "parse", "socket", "render", "table", "matrix", "token", "cache", "thread", "index", "merge"]
SIZE = len(WORDS)


def write_small_suite(
    folder: Path, name: str = "words", role: Literal["dev", "final"] | None = None, extra: str = ""
) -> Path:
    """Write the suite to `folder/name`: each query has one right document, and every other query names its word.

    Args:
        extra: what each document ends with, so that suites differ.
    """
    made = RetrievalSuite(
        name=name,
        corpus_ids=[f"d{row}" for row in range(SIZE)],
        corpus=[Document(f"the {word} function{extra}") for word in WORDS],
        query_ids=[f"q{row}" for row in range(SIZE)],
        queries=[f"how to {word}" if row % 2 else "nothing known" for row, word in enumerate(WORDS)],
        qrels={f"q{row}": {f"d{row}": 1} for row in range(SIZE)},
        role=role,
    )
    write_suite(folder / name, made)
    return folder / name
