"""Rows: what is written is read, and what is wrong is named by file, line and field."""

import gzip
import json

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemma4vec.data.rows.rows import OVERLONG, Row, content_hash, read_rows, write_rows
from gemma4vec.errors import InputError
from gemma4vec.text.prompts import Document

GOOD = '{"query": "q", "pos": ["p"]}'

texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(str.strip)
documents = st.builds(Document, texts, st.none() | texts.map(str.strip))
rows = st.builds(
    Row, texts, st.lists(documents, min_size=1, max_size=3), st.lists(documents, max_size=3), st.none() | texts
)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_written_rows_are_read(tmp_path_factory, name):
    @settings(deadline=None)
    @given(st.lists(rows, min_size=1, max_size=4))
    def check(written):
        path = tmp_path_factory.mktemp("rows") / name
        write_rows(path, written)
        first = path.read_bytes()
        read = read_rows(path)
        assert read.rows == written and not read.bad and content_hash(read.rows) == content_hash(written)
        write_rows(path, read.rows)
        assert path.read_bytes() == first

    check()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", "line 2: expected a JSON object, not a list"),
        ('{"question": "q", "pos": ["p"]}', "line 2, field 'query': is missing; the row has 'pos', 'question'"),
        ('{"query": "q"}', "line 2, field 'pos': is missing"),
        ('{"query": "q", "pos": []}', "line 2, field 'pos': is empty"),
        ('{"query": "q", "pos": ["  "]}', "line 2, field 'pos': has an empty text"),
        ('{"query": " ", "pos": ["p"]}', "line 2, field 'query': is empty"),
        ('{"query": "q", "pos": "p"}', "line 2, field 'pos': expected a list of texts, not a string"),
        ('{"query": "q", "pos": ["p", 3]}', "line 2, field 'pos[1]': expected a string or .*, not a number"),
        ('{"query": "q", "pos": [{"text": 3}]}', "line 2, field 'pos\\[0\\].text': expected a string, not a number"),
        (
            '{"query": "q", "pos": [{"text": "p", "title": []}]}',
            "field 'pos\\[0\\].title': expected a string, not a list",
        ),
        ('{"query": "q", "pos": ["p"], "neg": [null]}', "line 2, field 'neg\\[0\\]'"),
        ('{"query": "q", "pos": ["p"], "task": 1}', "line 2, field 'task': expected a string"),
        ('{"query": 1, "pos": ["p"]}', "line 2, field 'query': expected a string, not a number"),
        ("[" * 100_000, "line 2: not JSON"),
    ],
)
def test_a_bad_row_is_named(tmp_path, line, told):
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{GOOD}\n{line}\n")
    with pytest.raises(InputError, match=told.replace("pos[1]", r"pos\[1\]")) as raised:
        read_rows(path)
    assert str(path) in str(raised.value) and "1 of 2 rows are bad" in str(raised.value)
    assert "\n" not in str(raised.value)
    read = read_rows(path, max_bad_share=0.5)
    assert len(read.rows) == 1 and [bad.line for bad in read.bad] == [2]


def test_files_that_are_no_rows(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_rows(tmp_path / "missing.jsonl")
    with pytest.raises(InputError, match="cannot be read"):
        read_rows(tmp_path)
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n \n")
    with pytest.raises(InputError, match="the file is empty"):
        read_rows(empty, 1.0)
    binary = tmp_path / "binary.jsonl"
    binary.write_bytes(bytes(range(255, 0, -1)) * 20)
    with pytest.raises(InputError, match=r"line 1: not UTF-8 at byte .* rows are bad"):
        read_rows(binary, 1.0)
    latin = tmp_path / "latin.jsonl"
    latin.write_bytes(GOOD.replace("q", "é").encode("latin-1"))
    with pytest.raises(InputError, match="line 1: not UTF-8"):
        read_rows(latin)


def test_a_cut_or_false_gzip_is_told(tmp_path):
    whole = gzip.compress("\n".join([GOOD.replace("p", str(number)) for number in range(9_999)]).encode())
    for name, content in (("cut.jsonl.gz", whole[: len(whole) // 2]), ("plain.jsonl.gz", GOOD.encode())):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="compressed stream damaged after line"):
            read_rows(tmp_path / name)


def test_zstd_is_read_frame_after_frame(tmp_path):
    frame = pyarrow.compress(f"{GOOD}\n".encode(), "zstd", asbytes=True)
    (tmp_path / "rows.jsonl.zst").write_bytes(frame + frame)
    assert len(read_rows(tmp_path / "rows.jsonl.zst").rows) == 2


def test_a_cut_or_false_zstd_is_told(tmp_path):
    text = "\n".join([GOOD.replace("p", str(number)) for number in range(9_999)])
    whole = pyarrow.compress(text.encode(), "zstd", asbytes=True)
    cases = {"cut": whole[: len(whole) // 2], "second": whole + whole[: len(whole) // 2], "plain": GOOD.encode()}
    for name, content in cases.items():
        file = tmp_path / f"{name}.jsonl.zst"
        file.write_bytes(content)
        with pytest.raises(InputError, match=f"{name}.jsonl.zst: compressed stream damaged after line"):
            read_rows(file)


def test_unusual_texts_are_kept_and_counted(tmp_path):
    long = "x" * 100_000
    value = {"query": "a\x00b\ttab\r\nnext \ud800", "pos": [long], "neg": ["", "n"], "negs": ["lost"], "id": 7}
    path = tmp_path / "rows.jsonl"
    path.write_text("\ufeff" + json.dumps(value) + "\n")
    read = read_rows(path)
    assert read.rows == [Row("a b\ttab\nnext  ", [Document(long)], [Document("n")])]
    assert dict(read.counts) == {"empty": 1, "overlong": 1, "control": 1}
    assert dict(read.unknown_keys) == {"negs": 1, "id": 1}
    assert len(long) > OVERLONG


@given(rows, rows)
def test_the_hash_sees_every_boundary(one, other):
    assert (content_hash([one]) == content_hash([other])) == (one == other)
    assert content_hash([one, other]) != content_hash([one])
    moved = Row(one.query, [*one.pos, *one.neg], [], one.task)
    assert (content_hash([moved]) == content_hash([one])) == (not one.neg)
