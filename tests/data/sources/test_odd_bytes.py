"""Odd names, bytes and columns in sources: read as meant, or refused in one line."""

import gzip
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from tiny_sources import ROWS, write_beir, write_csv, write_jsonl, write_parquet, write_sqlite

from gemma4vec.data.loading.load_rows import load_sources
from gemma4vec.errors import InputError
from gemma4vec.recipe.sources import source_of

ROW = {"anchor": "a", "positive": "p", "negative1": "n1", "hard_negative": "n", "bogus": "x"}


def read(path: Path, kind: str, **settings: Any) -> Any:
    return load_sources([source_of(name="s", source=kind, path=str(path), **settings)])


def saved(path: Path) -> Path:
    import datasets

    datasets.DatasetDict({"train": datasets.Dataset.from_dict({k: [v] for k, v in ROW.items()})}).save_to_disk(
        str(path)
    )
    return path


@pytest.mark.parametrize(
    ("kind", "name", "write"),
    [
        ("csv", "t.csv", lambda path: write_csv(path, tuple(ROW), [tuple(ROW.values())])),
        ("tsv", "t.tsv", lambda path: write_csv(path, tuple(ROW), [tuple(ROW.values())])),
        ("parquet", "t.parquet", lambda path: write_parquet(path, {key: [value] for key, value in ROW.items()})),
        ("datasets", "folder", lambda path: write_parquet(path / "t.parquet", {k: [v] for k, v in ROW.items()}).parent),
        ("datasets", "saved", saved),
    ],
)
def test_every_table_reads_its_negatives_and_names_what_it_does_not_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, name: str, write: Callable[[Path], Path]
) -> None:
    path = write(tmp_path / name)
    with caplog.at_level(logging.WARNING):
        (row,) = read(path, kind).rows
    assert [text.text for text in row.neg] == ["n", "n1"]
    assert "s: unknown columns ignored: bogus" in caplog.text
    caplog.clear()
    read(path, kind, columns={"query": "anchor", "pos": "positive"})
    assert not caplog.text  # the recipe has chosen


@pytest.mark.parametrize("folder", ["a#b", "a?b", "a%20b", "a b", "ä", "a&mode=rw", "a'b", "a;b"])
def test_sqlite_opens_in_any_folder(tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / folder).mkdir()
    write_sqlite(tmp_path / folder / "q.db", ["one"])
    assert read(tmp_path / folder / "q.db", "sqlite").texts == ["one"]
    monkeypatch.chdir(tmp_path)
    assert read(Path(folder) / "q.db", "sqlite").texts == ["one"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_tables_in_wide_encodings(tmp_path: Path, encoding: str) -> None:
    text = write_csv(tmp_path / "u.csv").read_text(encoding="utf-8")
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(text.encode(encoding)))
    assert read(tmp_path / "t.csv.gz", "csv", encoding=encoding).rows == ROWS


def test_blank_lines_of_a_table_are_no_rows(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "t.csv")
    file.write_text(file.read_text().replace("\n", "\n\n"))
    assert read(file, "csv").rows == ROWS


def test_doubled_parquet_columns_are_refused(tmp_path: Path) -> None:
    table = pyarrow.Table.from_arrays([pyarrow.array([x]) for x in "abc"], names=["query", "pos", "pos"])
    pyarrow.parquet.write_table(table, tmp_path / "d.parquet")
    with pytest.raises(InputError, match=r"d\.parquet: two columns are called 'pos'"):
        read(tmp_path / "d.parquet", "parquet")


def test_a_parquet_folder_does_not_mix_splits(tmp_path: Path) -> None:
    write_parquet(tmp_path / "squad_train.parquet")
    assert read(tmp_path, "parquet").rows == ROWS
    write_parquet(tmp_path / "squad_test.parquet")
    with pytest.raises(InputError, match=r"has files of the splits test, train; use source: datasets"):
        read(tmp_path, "parquet")
    assert read(tmp_path, "datasets").rows == ROWS


def cut_gzip(path: Path) -> Path:
    path.write_bytes(gzip.compress(b"anchor\tpositive\n" + b"a\tb\n" * 999)[:-20])
    return path


def flipped_gzip(path: Path) -> Path:
    raw = bytearray(gzip.compress(b"".join(b"%d\tb%d\n" % (n, n * n) for n in range(999))))
    raw[40:60] = bytes(20)
    path.write_bytes(raw)
    return path


def content(raw: bytes) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        path.write_bytes(raw)
        return path

    return write


def beir_with(name: str, raw: bytes) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        (write_beir(path) / name).write_bytes(raw)
        return path

    return write


HUGE = b'{"query": "q", "pos": ["p"], "scores": {"pos": [1e400]}}\n'


@pytest.mark.parametrize(
    ("kind", "name", "write", "expected"),
    [
        ("tsv", "c.tsv.gz", cut_gzip, r"c\.tsv\.gz: compressed stream damaged after line \d+"),
        ("tsv", "f.tsv.gz", flipped_gzip, r"f\.tsv\.gz: compressed stream damaged after line \d+"),
        ("csv", "z.csv.zst", content(b"\x28\xb5\x2f\xfdnothing"), r"z\.csv\.zst: compressed stream damaged"),
        ("csv", "n.csv", content(b"a_ids,p_ids\n" + b"9" * 5000 + b",1\n"), r"n\.csv line 2, field 'query\.input_ids'"),
        (
            "jsonl",
            "u.jsonl",
            content('{"query": 1}\n'.encode("utf-16")),
            r"line 1: not UTF-8 at byte 0 \(is it UTF-16\?\)",
        ),
        ("text", "u.txt", content("one\n".encode("utf-16")), r"line 1: not UTF-8 at byte 0 \(is it UTF-16\?\)"),
        ("text", "w.txt", content("one\n".encode("utf-16-le")), r"line 1: is mostly NUL characters \(is it UTF-16\?\)"),
        ("jsonl", "h.jsonl", content(HUGE), r"line 1, field 'scores\.pos\[0\]': inf is not a finite number"),
        ("sqlite", "e.db", content(b""), r"e\.db: the database has no table"),
        (
            "beir",
            "nan",
            beir_with("qrels/train.tsv", b"q0\td0\tnan\n"),
            r"train\.tsv line 1: score 'nan' is not a whole",
        ),
        ("beir", "half", beir_with("qrels/train.tsv", b"q0\td0\t0.5\n"), r"line 1: score '0\.5' is not a whole number"),
        (
            "beir",
            "twice",
            beir_with("qrels/train.tsv", b"q0\td0\t1\nq0\td0\t0\n"),
            r"line 2: query 'q0' and document 'd0' are judged twice, with different scores",
        ),
    ],
)
def test_each_is_one_line(tmp_path: Path, kind: str, name: str, write: Callable[[Path], Path], expected: str) -> None:
    with pytest.raises(InputError, match=expected) as caught:
        read(write(tmp_path / name), kind)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500 + len(str(tmp_path))


def test_negative_judgments_alone_are_no_row(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "b")
    with (folder / "qrels" / "train.tsv").open("a") as stream:
        stream.write("q9\td0\t-1\n")
    assert read(folder, "beir").rows == ROWS


def test_names_in_rows_have_no_lone_surrogate(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    row = {"query": "q\ud83d", "pos": ["p"], "task": "t\ud83d", "group": "g\0", "odd\ud83d": 1}
    row["scores"] = {"pos": [1], "teacher": "x\ud83d"}
    (tmp_path / "r.jsonl").write_text(json.dumps(row) + "\n")
    (read_row,) = read(tmp_path / "r.jsonl", "jsonl").rows
    assert (read_row.query, read_row.task, read_row.group) == ("q ", "t ", "g ")
    assert read_row.scores.teacher == "x\N{REPLACEMENT CHARACTER}"
    assert "unknown keys in rows ignored: odd\N{REPLACEMENT CHARACTER}" in caplog.text


def test_many_unread_columns_are_shortened(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_parquet(tmp_path / "t.parquet", {"query": ["q"], "pos": ["p"], **{f"x{n:02}": [n] for n in range(50)}})
    read(tmp_path / "t.parquet", "parquet")
    assert caplog.text.strip().endswith("x18, x19 and 30 more")


def test_an_unread_column_whose_name_is_no_text(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "t.csv").write_bytes(b"query,pos,gr\xf6\xdfe\nq,p,5\n")
    read(tmp_path / "t.csv", "csv")
    assert "unknown columns ignored: gr\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}e" in caplog.text


def test_jsonl_says_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_jsonl(tmp_path / "r.jsonl")
    path.write_text('{"query": "q", "pos": ["p"], "hard_negative": "n"}\n')
    assert not read(path, "jsonl").rows[0].neg and "unknown keys in rows ignored: hard_negative" in caplog.text
