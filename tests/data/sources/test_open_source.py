"""Every kind of source gives the rows that its file holds, and says where a bad one stands."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import torch
from tiny_sources import ROWS, TRIPLETS, write_beir, write_csv, write_jsonl, write_parquet, write_sqlite

from gemma4vec.data.loading.load_rows import load_sources
from gemma4vec.errors import InputError
from gemma4vec.recipe.sources import source_of
from gemma4vec.text.pretokenized import PretokenizedText


def read(path: Path, kind: str, **settings: Any) -> Any:
    return load_sources([source_of(name="s", source=kind, path=str(path), **settings)])


def is_saved_dataset(path: Path) -> Path:
    import datasets

    table = datasets.Dataset.from_dict({name: [row[i] for row in TRIPLETS] for i, name in enumerate(("a", "p", "n"))})
    datasets.DatasetDict({"train": table}).save_to_disk(str(path))
    return path


def f2llm_folder(path: Path) -> Path:
    """One file a data set, as F2LLM's: some have 24 negatives, others one."""
    first = {"query": [TRIPLETS[0][0]], "passage": [TRIPLETS[0][1]], "negative_1": [TRIPLETS[0][2]]}
    write_parquet(path / "one.parquet", first)
    rest = {"query": [row[0] for row in TRIPLETS[1:]], "passage": [row[1] for row in TRIPLETS[1:]]}
    rest |= {f"negative_{n}": [row[2] if n == 1 else None for row in TRIPLETS[1:]] for n in range(1, 25)}
    write_parquet(path / "two.parquet", rest)
    return path


@pytest.mark.parametrize(
    ("kind", "name", "write"),
    [
        ("jsonl", "r.jsonl", write_jsonl),
        ("jsonl", "r.jsonl.gz", write_jsonl),
        ("parquet", "r.parquet", write_parquet),
        ("parquet", "folder", lambda path: write_parquet(path / "r.parquet").parent),
        ("csv", "r.csv", write_csv),
        ("tsv", "r.tsv", write_csv),
        ("datasets", "saved", is_saved_dataset),
        ("datasets", "f2llm", f2llm_folder),
        ("beir", "beir", write_beir),
    ],
)
def test_every_kind_gives_the_same_rows(tmp_path: Path, kind: str, name: str, write: Callable[[Path], Path]) -> None:
    loaded = read(write(tmp_path / name), kind)
    assert loaded.rows == ROWS
    assert loaded.sources["s"]["rows"] == 3 and loaded.sources["s"]["bad_rows"] == 0


def test_plain_texts_of_sqlite_csv_and_text_files(tmp_path: Path) -> None:
    expected = ["one", "two"]
    (tmp_path / "t.txt").write_text("one\n\ntwo\n")
    assert read(tmp_path / "t.txt", "text").texts == expected
    assert read(write_sqlite(tmp_path / "q.db", expected), "sqlite").texts == expected
    file = write_csv(tmp_path / "t.csv", ("id", "body"), [(1, "one"), (2, "two")])
    assert read(file, "csv", columns={"text": "body"}).texts == expected
    itself = read(tmp_path / "t.txt", "text", pair_with_itself=True)
    assert [(row.query, [text.text for text in row.pos]) for row in itself.rows] == [("one", ["one"]), ("two", ["two"])]
    assert not itself.texts


def test_tokens_of_tensors_and_csv(tmp_path: Path) -> None:
    ids, mask = torch.tensor([[2, 5, 0], [2, 0, 0]]), torch.tensor([[1, 1, 0], [1, 0, 0]])
    torch.save({"input_ids": ids, "attention_mask": mask}, tmp_path / "t.pt")
    loaded = read(tmp_path / "t.pt", "tensors")
    assert [text.ids for text in loaded.texts] == [[2, 5], [2]] and loaded.sources["s"]["largest_token"] == 5
    names = ("a_ids", "a_mask", "p_ids", "p_mask", "n_ids", "n_mask")
    file = write_csv(tmp_path / "t.csv", names, [("[2, 5, 0]", "[1, 1, 0]", "[2, 6]", "[1, 1]", "[7]", "[1]")])
    (row,) = read(file, "csv").rows
    texts = [row.query, row.pos[0].text, row.neg[0].text]
    assert all(isinstance(text, PretokenizedText) for text in texts)
    assert [text.ids for text in texts] == [[2, 5], [2, 6], [7]]


def test_a_csv_with_quotes_and_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "w.csv").write_bytes('query,pos\n"Größe,\nin m","sie ""misst"" 3"\n'.encode("cp1252"))
    (row,) = read(tmp_path / "w.csv", "csv", encoding="cp1252").rows
    assert (row.query, row.pos[0].text) == ("Größe,\nin m", 'sie "misst" 3')


def test_broken_json_far_down_is_named_and_counted_only_below_the_share(tmp_path: Path) -> None:
    lines = [json.dumps({"query": f"q{i}", "pos": ["p"]}) for i in range(70_010)]
    lines[70_000] = '{"query": "broken"'
    (tmp_path / "big.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=r"big\.jsonl line 70001: not JSON .*1 of 70010 rows are bad, 0% are allow"):
        read(tmp_path / "big.jsonl", "jsonl")
    loaded = read(tmp_path / "big.jsonl", "jsonl", max_bad_share=0.001)
    assert len(loaded.rows) == 70_009 and loaded.sources["s"]["bad_rows"] == 1


def bad_sqlite(path: Path) -> Path:
    return write_sqlite(path, ["fine", 3])


def two_tables(path: Path) -> Path:
    write_sqlite(path, ["x"])
    return write_sqlite(path, ["x"], table="other")


def cut(path: Path) -> Path:
    path.write_bytes(gzip.compress(json.dumps({"query": "q", "pos": ["p"]}).encode() * 999)[:-20])
    return path


def other_encoding(path: Path) -> Path:
    """A column of texts with bytes that are none, which Arrow does not look at before it must."""
    raw = pyarrow.array([b"fine", "größe".encode("cp1252")], pyarrow.binary())
    texts = pyarrow.Array.from_buffers(pyarrow.string(), 2, raw.buffers())
    return write_parquet(path, {"query": ["a", "b"], "pos": texts})


def bytes_of(content: bytes) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize(
    ("kind", "name", "write", "expected"),
    [
        ("jsonl", "cut.jsonl.gz", cut, r"cut\.jsonl\.gz: compressed stream damaged"),
        ("jsonl", "n.jsonl", bytes_of(b'{"query": "q", "pos": [5]}\n'), r"line 1, field 'pos\[0\]': .*not a number"),
        ("jsonl", "m.jsonl", bytes_of(b'{"query": "\xff", "pos": ["x"]}\n'), r"m\.jsonl line 1: not UTF-8 at byte 11"),
        ("jsonl", "i.jsonl", bytes_of(b'{"query": {"input_ids": [1, -2]}, "pos": ["x"]}\n'), "-2 is not a token id"),
        (
            "parquet",
            "w.parquet",
            lambda path: write_parquet(path, {"query": ["q"], "pos": [5]}),
            r"w\.parquet, column 'pos': expected texts.*not int64",
        ),
        ("parquet", "o.parquet", other_encoding, r"o\.parquet row 2, field 'pos': not UTF-8 at byte 2 \(1 of 2 rows"),
        ("parquet", "x.parquet", bytes_of(b"nothing"), r"x\.parquet: cannot be read as Parquet"),
        ("parquet", "none", lambda path: path, r"none: no such file"),
        ("csv", "q.csv", bytes_of(b'query,pos\na,b\n"c,d\n'), r"q\.csv line 3: not CSV \(unexpected end of data\)"),
        ("csv", "c.csv", bytes_of(b"query,pos\na\n"), r"c\.csv line 2: has 1 cells, the header has 2"),
        ("csv", "u.csv", bytes_of(b"query,pos\na,b\xff\n"), r"u\.csv line 2, field 'pos': is not text"),
        ("csv", "e.csv", bytes_of(b""), r"e\.csv: the file is empty"),
        ("csv", "d.csv", bytes_of(b"query,query\n"), "two columns are called 'query'"),
        ("csv", "k.csv", bytes_of(b"foo,bar\na,b\n"), r"k\.csv: columns 'foo', 'bar': no known layout"),
        ("csv", "t.csv", bytes_of(b"a_ids,p_ids\n1 2,x\n"), r"t\.csv line 2, field 'pos\[0\]\.input_ids'"),
        ("sqlite", "b.db", bad_sqlite, r"row 2, field 'query': expected a text, not int"),
        ("sqlite", "two.db", two_tables, r"two\.db: 2 tables; name one of other, queries"),
        ("sqlite", "n.db", bytes_of(b"nothing" * 99), r"n\.db: cannot be read as SQLite"),
        ("tensors", "n.pt", bytes_of(b"nothing"), r"n\.pt: cannot be read as a file of torch\.save"),
        ("datasets", "empty", lambda path: path.mkdir() or path, r"empty: no file to read"),
        ("beir", "b", lambda path: path.mkdir() or path, r"corpus\.jsonl: missing"),
    ],
)
def test_bad_input_is_named(tmp_path: Path, kind: str, name: str, write: Callable[[Path], Path], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        read(write(tmp_path / name), kind)


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        ({"input_ids": torch.ones(2, 3)}, "'attention_mask', the file has 'input_ids'"),
        (
            {"input_ids": torch.ones(2, 3), "attention_mask": torch.ones(2, 2)},
            r"input_ids \(2, 3\) and attention_mask \(2, 2\) must both be",
        ),
        ({"input_ids": torch.ones(2, 3), "attention_mask": torch.ones(2, 3)}, "expected integers"),
        (
            {"input_ids": torch.tensor([[1], [2]]), "attention_mask": torch.tensor([[1], [0]])},
            "row 2: is empty",
        ),
    ],
)
def test_tensors_that_do_not_fit(tmp_path: Path, tensors: dict[str, torch.Tensor], expected: str) -> None:
    torch.save(tensors, tmp_path / "t.pt")
    with pytest.raises(InputError, match=expected):
        read(tmp_path / "t.pt", "tensors")


def test_judgments_of_unknown_documents_are_bad_rows(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "b")
    with (folder / "qrels" / "train.tsv").open("a") as stream:
        stream.write("q1\tmissing\t1\n")
    with pytest.raises(InputError, match=r"train\.tsv line 4: names 'missing', which is not in corpus\.jsonl"):
        read(folder, "beir")
    with pytest.raises(InputError, match=r"qrels/dev\.tsv: missing; the folder has judgments of train"):
        read(folder, "beir", split="dev")


def test_tensors_are_read_where_they_stand(tmp_path: Path) -> None:
    ids = torch.randint(3, 500, (3_000, 7))
    lengths = torch.randint(1, 8, (3_000, 1))
    expected = [row[:n].tolist() for row, (n,) in zip(ids, lengths.tolist(), strict=True)]
    torch.save({"input_ids": ids, "attention_mask": torch.arange(7)[None] < lengths}, tmp_path / "t.pt")
    for _ in range(2):  # looked at once, then remembered
        loaded = read(tmp_path / "t.pt", "tensors", pair_with_itself=True, max_rows=2_900)
        assert (
            [row.query.ids for row in loaded.rows] == [row.pos[0].text.ids for row in loaded.rows] == expected[:2_900]
        )
        assert loaded.sources["s"]["largest_token"] == max(map(max, expected))
    assert loaded.rows.negative_counts().sum() == 0 and set(loaded.rows.group_numbers()) == {-1}
    ids[7, 0], lengths[7], lengths[9] = -3, 2, 0
    torch.save({"input_ids": ids, "attention_mask": torch.arange(7)[None] < lengths}, tmp_path / "t.pt")
    with pytest.raises(InputError, match=r"t\.pt row 8: .* \(2 of 3000 rows are bad, 0% are allowed\)"):
        read(tmp_path / "t.pt", "tensors")
    kept = read(tmp_path / "t.pt", "tensors", max_bad_share=0.1)
    assert len(kept.texts) == 2_998 and [text.ids for text in kept.texts] == [
        one for number, one in enumerate(expected) if number not in (7, 9)
    ]


def test_a_folder_of_files_gives_those_of_its_split(tmp_path: Path) -> None:
    folder = tmp_path / "train" / "plain"  # the name of a folder above says nothing
    (folder / "train").mkdir(parents=True)
    (tmp_path / "unnamed").mkdir()
    write_jsonl(folder / "validation.jsonl")
    with pytest.raises(InputError, match=r"named after the split 'train'; there are files of validation"):
        read(folder, "datasets")
    assert len(read(folder, "datasets", split="validation").rows) == 3
    write_jsonl(folder / "train" / "one.jsonl")
    assert read(folder, "datasets").rows == ROWS
    write_jsonl(tmp_path / "unnamed" / "part-1.jsonl")
    assert read(tmp_path / "unnamed", "datasets").rows == ROWS
    with pytest.raises(InputError, match="'test'; no file is named after any"):
        read(tmp_path / "unnamed", "datasets", split="test")
