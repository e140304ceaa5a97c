"""SQLite tables of texts, and `torch.save` files of token ids (the file formats of Gemma-Embed)."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemma4vec.data.rows.records import Record
from gemma4vec.data.sources.columns import map_columns, unread_columns
from gemma4vec.errors import InputError
from gemma4vec.recipe.sources import SqliteSource

if TYPE_CHECKING:
    from torch import Tensor


def sqlite_records(path: Path, source: SqliteSource) -> Iterator[Record]:
    """Texts of one column of a SQLite table, in order of insertion.

    Raises:
        InputError: not a SQLite file, several tables and none is named, or no such table or column.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    try:
        # `as_uri` escapes #, ? and %, which would end or change the path.
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            connection.text_factory = bytes
            table = _table(connection, path, source.table)
            where = f"{path}, table {table!r}"
            columns = connection.execute(f"PRAGMA table_info({_quoted(table)})")
            names = [row[1].decode("utf-8", errors="replace") for row in columns]
            mapped = map_columns(names, source.columns, where, plain=True)
            unread = unread_columns(mapped, names, source.columns)
            column = mapped.text
            assert column is not None
            found = connection.execute(f"SELECT {_quoted(column)} FROM {_quoted(table)}")
            for number, (value,) in enumerate(found, start=1):
                yield _sqlite_record(where, number, column, value, unread)
    except (sqlite3.Error, UnicodeEncodeError) as error:
        raise InputError(f"{path}: cannot be read as SQLite ({error}); check the file") from error


def _sqlite_record(where: str, number: int, column: str, value: Any, unread: tuple[str, ...]) -> Record:
    if not isinstance(value, bytes):
        return Record(where, number, None, f"expected a text, not {type(value).__name__}", column, "row")
    try:
        return Record(where, number, {"text": value.decode("utf-8")}, unit="row", unread=unread)
    except UnicodeDecodeError as error:
        return Record(where, number, None, f"not UTF-8 at byte {error.start}", column, "row")


def _table(connection: sqlite3.Connection, path: Path, wanted: str | None) -> str:
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    tables = sorted(name.decode("utf-8", errors="replace") for (name,) in rows)
    if wanted is not None and wanted in tables:
        return wanted
    if wanted is None and len(tables) == 1:
        return tables[0]
    if not tables:
        raise InputError(f"{path}: the database has no table; check the path")
    raise InputError(
        f"{path}: {f'no table {wanted!r}' if wanted else f'{len(tables)} tables'}; "
        f"name one of {', '.join(tables)} as the source's table"
    )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def open_tensors(path: Path) -> "tuple[Tensor, Tensor]":
    """`input_ids` and `attention_mask` of a file, mapped into memory: both `[N, C]`.

    Raises:
        InputError: no such file or tensors, or wrong shapes or types.
    """
    import torch

    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    try:
        found = torch.load(path, mmap=True, weights_only=True, map_location="cpu")
    except Exception as error:  # zipfile, pickle and torch raise many types
        raise InputError(
            f"{path}: cannot be read as a file of torch.save ({' '.join(str(error).split())[:120]}); "
            "copy or make it again"
        ) from error
    names = ("input_ids", "attention_mask")
    if not isinstance(found, dict) or any(not isinstance(found.get(name), torch.Tensor) for name in names):
        has = ", ".join(map(repr, found)) if isinstance(found, dict) else type(found).__name__
        raise InputError(f"{path}: expected tensors 'input_ids' and 'attention_mask', the file has {has}")
    ids, mask = found["input_ids"], found["attention_mask"]
    if ids.ndim != 2 or ids.shape != mask.shape:
        raise InputError(
            f"{path}: input_ids {tuple(ids.shape)} and attention_mask {tuple(mask.shape)} must both be [rows, tokens]"
        )
    if ids.is_floating_point() or ids.is_complex():
        raise InputError(f"{path}, field 'input_ids': expected integers, not {ids.dtype}")
    return ids, mask
