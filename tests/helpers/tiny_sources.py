"""The same three rows as files of every kind, and what reading them must give."""

import csv
import gzip
import json
import sqlite3
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from gemma4vec.data.rows.rows import Row
from gemma4vec.text.prompts import Document

TRIPLETS = [(f"query {i}", f"positive {i}", f"negative {i}") for i in range(3)]
ROWS = [Row(query, [Document(positive)], [Document(negative)]) for query, positive, negative in TRIPLETS]
NAMES = ("anchor", "positive", "negative")


def write_jsonl(path: Path) -> Path:
    lines = "".join(json.dumps({"query": q, "pos": [p], "neg": [n]}) + "\n" for q, p, n in TRIPLETS)
    path.write_bytes(gzip.compress(lines.encode()) if path.suffix == ".gz" else lines.encode())
    return path


def write_parquet(path: Path, columns: dict[str, Any] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = columns or {name: [row[i] for row in TRIPLETS] for i, name in enumerate(NAMES)}
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def write_csv(path: Path, names: tuple[str, ...] = NAMES, rows: list[Any] = TRIPLETS) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writerow(names)
        writer.writerows(rows)
    return path


def write_beir(folder: Path) -> Path:
    (folder / "qrels").mkdir(parents=True)
    documents = [text for _, positive, negative in TRIPLETS for text in (positive, negative)]
    corpus = [{"_id": f"d{i}", "title": "", "text": text} for i, text in enumerate([*documents, "never judged"])]
    queries = [{"_id": f"q{i}", "text": query} for i, (query, _, _) in enumerate(TRIPLETS)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(one) + "\n" for one in corpus))
    (folder / "queries.jsonl").write_text("".join(json.dumps(one) + "\n" for one in queries))
    judged = "".join(f"q{i}\td{2 * i}\t1\nq{i}\td{2 * i + 1}\t0\n" for i in range(3))
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    return folder


def write_sqlite(path: Path, values: list[Any], table: str = "queries", column: str = "query") -> Path:
    with sqlite3.connect(path) as connection:
        connection.execute(f"CREATE TABLE {table} (id INTEGER, {column})")
        connection.executemany(f"INSERT INTO {table} VALUES (?, ?)", enumerate(values))
    connection.close()
    return path
