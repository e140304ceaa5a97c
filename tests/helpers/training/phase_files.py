"""The files of Gemma-Embed's recipes, small: sentences, triplets of token ids, a database, tensors, pairs, a suite."""

import csv
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import torch
from small_suite import write_small_suite

from gemma4vec.data.rows.rows import Row, write_rows
from gemma4vec.text.prompts import Document

COLUMNS = ("a_ids", "a_mask", "p_ids", "p_mask", "n_ids", "n_mask")


def byte_ids(text: str) -> list[int]:
    """Bytes above the special tokens, as the tiny tokenizer has them."""
    return [10 + ord(letter) for letter in text]


def write_phase_files(
    folder: Path, rows: Sequence[Row], width: int = 16, ids_of: Callable[[str], list[int]] = byte_ids
) -> None:
    """Write text.txt, triplets.csv, queries.db, pretokenized_queries.pt, pairs.jsonl.gz and the suite `dev`.

    Args:
        width: of the tensors.
        ids_of: token ids of a text, in the vocabulary of the base.
    """
    (folder / "text.txt").write_text("".join(f"{row.pos[0].text} {n}\n" for n, row in enumerate(rows)))
    tokens = [[padded(text, width, ids_of) for text in (row.query, row.pos[0].text, row.query[::-1])] for row in rows]
    write_triplets(folder / "triplets.csv", [[list(part) for text in row for part in text] for row in tokens])
    write_queries(folder / "queries.db", [row.query for row in rows])
    ids, masks = (torch.tensor([row[0][part] for row in tokens]) for part in (0, 1))
    torch.save({"input_ids": ids, "attention_mask": masks}, folder / "pretokenized_queries.pt")
    pairs = [Row(row.query, [Document(row.query[::-1], row.pos[0].text)], group=str(n)) for n, row in enumerate(rows)]
    write_rows(folder / "pairs.jsonl.gz", pairs)
    write_small_suite(folder, "dev", "dev")


def padded(text: str, width: int, ids_of: Callable[[str], list[int]] = byte_ids) -> tuple[list[int], list[int]]:
    """Token ids and mask, both of this width."""
    ids = ids_of(text)[:width]
    rest = width - len(ids)
    return ids + [0] * rest, [1] * len(ids) + [0] * rest


def write_triplets(path: Path, cells: Sequence[Sequence[Sequence[int]]]) -> None:
    """Rows of six lists each, in the order of `COLUMNS`."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        writer.writerows(cells)


def write_queries(path: Path, queries: Sequence[str], tables: Sequence[str] = ("queries",)) -> None:
    """A database with these queries in each table."""
    with closing(sqlite3.connect(path)) as connection:
        for table in tables:
            connection.execute(f"CREATE TABLE {table} (query TEXT)")
            connection.executemany(f"INSERT INTO {table} VALUES (?)", [(query,) for query in queries])
        connection.commit()
