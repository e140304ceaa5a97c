"""SQLite tables and files of token ids with odd names and contents."""

from pathlib import Path

import pytest
import torch
from tiny_sources import write_sqlite

from gemma4vec.data.sources.token_files import open_tensors, sqlite_records
from gemma4vec.errors import InputError
from gemma4vec.recipe.sources import SqliteSource


def source(**settings: object) -> SqliteSource:
    return SqliteSource.model_validate({"name": "q", "path": "q.db", **settings})


def test_names_that_sql_and_addresses_would_read_otherwise(tmp_path: Path) -> None:
    table = 'two "words"; DROP TABLE x'
    path = write_sqlite(tmp_path / "a#b?c%20d.db", ["one", "two"], table='"' + table.replace('"', '""') + '"')
    for settings in ({}, {"table": table}):
        records = list(sqlite_records(path, source(**settings)))
        assert [(record.number, record.value) for record in records] == [(1, {"text": "one"}), (2, {"text": "two"})]
    with pytest.raises(InputError, match="no table 'other'; name one of"):
        list(sqlite_records(path, source(table="other")))


def test_a_missing_file_and_an_empty_database(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.db: no such file"):
        list(sqlite_records(tmp_path / "none.db", source()))
    (tmp_path / "empty.db").touch()
    with pytest.raises(InputError, match="the database has no table"):
        list(sqlite_records(tmp_path / "empty.db", source()))
    with pytest.raises(InputError, match=r"none\.pt: no such file"):
        open_tensors(tmp_path / "none.pt")


def test_tensors_are_returned_as_they_are(tmp_path: Path) -> None:
    ids, mask = torch.tensor([[2, 5, 0]]), torch.tensor([[1, 1, 0]])
    torch.save({"input_ids": ids, "attention_mask": mask}, tmp_path / "t.pt")
    found = open_tensors(tmp_path / "t.pt")
    assert torch.equal(found[0], ids) and torch.equal(found[1], mask)
    torch.save([ids], tmp_path / "list.pt")
    with pytest.raises(InputError, match="the file has list"):
        open_tensors(tmp_path / "list.pt")
