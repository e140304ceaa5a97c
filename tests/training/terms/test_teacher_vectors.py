"""A teacher's file of vectors: its texts are cleaned as those of rows, so that equal texts are found."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from gemma4vec.data.rows.rows import read_rows
from gemma4vec.errors import InputError
from gemma4vec.training.terms.teacher_vectors import read_vectors

ODD = [
    "how to\r\nopen",
    "form\x0cfeed",
    "line\u2028end",
    "lone \ud83d",
    "nul\0",
    "\ufeffmark",
    "plain",
    "a\rb",
    "\x85next",
]


def rows_of(path: Path) -> list[str]:
    path.write_text("".join(json.dumps({"query": text, "pos": ["p"]}) + "\n" for text in ODD))
    return [row.query for row in read_rows(path).rows]


def test_every_text_of_the_rows_is_found(tmp_path: Path) -> None:
    queries = rows_of(tmp_path / "rows.jsonl")
    vectors = np.eye(len(ODD), dtype=np.float32)
    lines = [json.dumps({"text": text, "vector": vector.tolist()}) for text, vector in zip(ODD, vectors, strict=True)]
    (tmp_path / "v.jsonl").write_text("\n".join(lines) + "\n")
    np.save(tmp_path / "n.npy", vectors)
    (tmp_path / "n.jsonl").write_text("".join(json.dumps(text) + "\n" for text in ODD))
    encodable = [text for text in ODD if "\ud83d" not in text]
    table = {"text": encodable, "vector": vectors[: len(encodable)].tolist()}
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "v.parquet")
    for name in ("v.jsonl", "n.npy"):
        places, found = read_vectors(tmp_path / name, "k")
        assert [places["", query] for query in queries] == list(range(len(ODD)))
        assert np.array_equal(found, vectors)
    places, _ = read_vectors(tmp_path / "v.parquet", "k")
    assert {query for _, query in places} == {
        query for text, query in zip(ODD, queries, strict=True) if text in encodable
    }


def test_titles_are_cleaned_too(tmp_path: Path) -> None:
    (tmp_path / "v.jsonl").write_text('{"text": "x", "title": " a\\u0000 ", "vector": [1]}\n')
    assert read_vectors(tmp_path / "v.jsonl", "k")[0] == {("a", "x"): 0}


@pytest.mark.parametrize("vector", ["123", [True], [None], ["1"], {"a": 1}, None, [[1]]])
def test_what_is_no_vector_is_one_line(tmp_path: Path, vector: Any) -> None:
    (tmp_path / "v.jsonl").write_text(json.dumps({"text": "x", "vector": vector}) + "\n")
    with pytest.raises(InputError, match=r"^k: .*v\.jsonl line 1: a vector is a list of numbers"):
        read_vectors(tmp_path / "v.jsonl", "k")


def test_a_damaged_npy_header_is_one_line(tmp_path: Path) -> None:
    np.save(tmp_path / "n.npy", np.ones((2, 3), np.float32))
    raw = (tmp_path / "n.npy").read_bytes()
    (tmp_path / "n.npy").write_bytes(raw.replace(b"}  ", b"} }"))
    with pytest.raises(InputError, match=r"n\.npy: cannot be read as \.npy"):
        read_vectors(tmp_path / "n.npy", "k")


def test_values_beyond_32_bits_are_refused(tmp_path: Path) -> None:
    (tmp_path / "v.jsonl").write_text('{"text": "x", "vector": [1e300]}\n')
    with pytest.raises(InputError, match="vector 1 has a value that is no finite number"):
        read_vectors(tmp_path / "v.jsonl", "k")


def test_deep_json_and_doubled_or_undecodable_columns(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text("[" * 100_000 + "\n")
    with pytest.raises(InputError, match=r"d\.jsonl line 1: not JSON"):
        read_vectors(tmp_path / "d.jsonl", "k")
    arrays = [pyarrow.array(["a"]), pyarrow.array(["b"]), pyarrow.array([[1.0]])]
    doubled = pyarrow.Table.from_arrays(arrays, names=["text", "text", "vector"])
    pyarrow.parquet.write_table(doubled, tmp_path / "d.parquet")
    with pytest.raises(InputError, match=r"d\.parquet: two columns are called 'text'"):
        read_vectors(tmp_path / "d.parquet", "k")
    raw = pyarrow.array([b"\xff"], pyarrow.binary())
    texts = pyarrow.Array.from_buffers(pyarrow.string(), 1, raw.buffers())
    pyarrow.parquet.write_table(pyarrow.table({"text": texts, "vector": [[1.0]]}), tmp_path / "u.parquet")
    with pytest.raises(InputError, match=r"u\.parquet: cannot be read as Parquet"):
        read_vectors(tmp_path / "u.parquet", "k")
