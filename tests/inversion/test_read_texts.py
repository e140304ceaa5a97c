"""Texts to attack, by file."""

from pathlib import Path

import pytest

from gemma4vec.data.rows.rows import Row, write_rows
from gemma4vec.errors import InputError
from gemma4vec.inversion.read_texts import read_texts
from gemma4vec.text.prompts import Document


def test_lines_and_the_queries_of_rows_keep_the_names_of_their_files(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("one\ntwo\n")
    write_rows(tmp_path / "pairs.jsonl.gz", [Row("three", [Document("a document")])])
    files = [tmp_path / "lines.txt", tmp_path / "pairs.jsonl.gz"]
    assert read_texts(files, 10) == (["one", "two", "three"], ["lines", "lines", "pairs"])
    texts, sources = read_texts(files, 2, seed=4)
    assert len(texts) == len(sources) == 2 and set(texts) < {"one", "two", "three"}


def test_other_files_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x\n")
    with pytest.raises(InputError, match=r"a\.csv: expected \.txt \(a text a line\) or \.jsonl"):
        read_texts([tmp_path / "a.csv"], 10)
    with pytest.raises(InputError, match=r"none\.txt: no such file"):
        read_texts([tmp_path / "none.txt"], 10)
    (tmp_path / "b").mkdir()
    for file in (tmp_path / "x.txt", tmp_path / "b" / "x.txt"):
        file.write_text("x\n")
    with pytest.raises(InputError, match="two files are called 'x'"):
        read_texts([tmp_path / "x.txt", tmp_path / "b" / "x.txt"], 10)
