"""What a bulk encoding reads: kinds of files, any shard from its place, rejected rows and why."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from encoded_folders import corpus, write_corpus

from gemma4vec.errors import InputError
from gemma4vec.serving.encode.input_files import InputFiles, open_input
from gemma4vec.serving.encode.input_rows import BadRow, Fields, GoodRow
from gemma4vec.serving.encode.plan import Plan, make_plan
from gemma4vec.text.prompts import Document


def plan_of(files: InputFiles, *, shard_rows: int = 7, share: float = 1.0, input_type: str = "document") -> Plan:
    encoding = {"shard_rows": shard_rows, "input_type": input_type, "dimension": 8, "dtype": "f32", "format": "npy"}
    return make_plan(files, {"input": {}, "encoding": encoding, "model": {}, "versions": {}}, share)


def rows_of(path: Path, fields: Fields | None = None, **settings) -> list[GoodRow | BadRow]:
    """All rows, shard by shard, each shard read on its own and in reverse, so that no reading helps another."""
    files = open_input(path, fields or Fields(), queries=settings.get("input_type") == "query")
    plan = plan_of(files, **settings)
    shards = [list(plan.read(files, shard)) for shard in reversed(range(len(plan.places)))]
    assert sum(map(len, shards)) == plan.rows
    return [row for shard in reversed(shards) for row in shard]


def write_kind(folder: Path, kind: str, rows: list[dict]) -> Path:
    path = folder / f"c.{kind}"
    lines = "".join(json.dumps(row) + "\n\n" for row in rows)  # blank lines count as lines, not as rows
    if kind == "jsonl":
        path.write_text("\ufeff" + lines)
    elif kind == "jsonl.gz":
        path.write_bytes(gzip.compress(lines.encode()))
    elif kind == "jsonl.zst":
        with pa.output_stream(str(path), compression="zstd") as stream:
            stream.write(lines.encode())
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=5)
    elif kind == "folder":
        path = folder / "tables"
        path.mkdir()
        for part in (0, 1):
            pq.write_table(
                pa.Table.from_pylist(rows[part * 11 : part * 11 + 11 * (1 + part)]), path / f"{part}.parquet"
            )
    else:
        mark = "," if kind == "csv" else "\t"
        body = (mark.join([row["id"], row["text"], row["title"] or ""]) for row in rows)
        path.write_text("\n".join([mark.join(["id", "text", "title"]), *body]) + "\n")
    return path


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "jsonl.zst", "parquet", "folder", "csv", "tsv"])
def test_every_kind_gives_the_same_rows_from_any_shard(tmp_path: Path, kind: str) -> None:
    rows = corpus(23)
    found = rows_of(write_kind(tmp_path, kind, rows))
    assert [row.id for row in found] == [row["id"] for row in rows]
    assert [row.document for row in found] == [Document(row["text"], row["title"]) for row in rows]


def test_a_text_file_has_a_row_a_line(tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_text("one\n\ntwo\nthree\nfour\n")
    found = rows_of(tmp_path / "c.txt", shard_rows=2)
    assert [(row.id, row.document.text) for row in found] == [("1", "one"), ("2", "two"), ("3", "three"), ("4", "four")]
    assert found[2].place == "c.txt line 4"


def test_a_beir_folder_has_a_corpus_and_queries(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus.jsonl", [{"_id": "c", "title": "T", "text": "x"}])
    write_corpus(tmp_path / "queries.jsonl", [{"_id": "q", "title": "not read", "text": "y"}])
    assert rows_of(tmp_path)[0][1:] == ("c", Document("x", "T"))
    assert rows_of(tmp_path, input_type="query")[0][1:] == ("q", Document("y", None))


def test_fields_have_other_names(tmp_path: Path) -> None:
    path = write_corpus(tmp_path / "c.jsonl", [{"key": 7, "body": "x", "head": "T"}])
    assert rows_of(path, Fields("key", "body", "head"))[0][1:] == ("7", Document("x", "T"))
    assert rows_of(path, Fields(None, "body", "head", row_ids=True))[0].id == "1"


BAD = {
    '{"text": "x"}': "field 'id' is missing",
    '{"id": 1.5, "text": "x"}': "field 'id' must be a string or a whole number, not a number",
    '{"id": true, "text": "x"}': "field 'id' must be a string or a whole number, not a boolean",
    '{"id": "", "text": "x"}': "field 'id' is empty",
    '{"id": "a\\ud800", "text": "x"}': "field 'id' has a lone surrogate",
    '{"id": "a"}': "field 'text' is missing",
    '{"id": "a", "text": null}': "field 'text' must be a string, not null",
    '{"id": "a", "text": ["x"]}': "field 'text' must be a string, not a list",
    '{"id": "a", "text": " \\n"}': "field 'text' is empty",
    '{"id": "a", "text": "x", "title": 3}': "field 'title' must be a string, not a number",
    '{"id": "first", "text": "x"}': "field 'id' is that of an earlier row of this shard",
    "[1]": "expected a JSON object, not a list",
    '{"id": "a", "text"': "not JSON",
}


@pytest.mark.parametrize("line", BAD)
def test_a_rejected_row_has_its_line_and_reason(tmp_path: Path, line: str) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text('{"id": "first", "text": "good"}\n' + line + '\n{"id": "last", "text": "", "title": "T"}\n')
    good, bad, last = rows_of(path)
    assert isinstance(bad, BadRow) and bad.place == "c.jsonl line 2" and bad.reason.startswith(BAD[line])
    assert isinstance(good, GoodRow) and isinstance(last, GoodRow)  # a title alone is a text


def test_an_id_may_come_again_in_another_shard(tmp_path: Path) -> None:
    path = write_corpus(tmp_path / "c.jsonl", [{"id": "a", "text": "x"}] * 4)
    assert [type(row) for row in rows_of(path, shard_rows=2)] == [GoodRow, BadRow, GoodRow, BadRow]


def test_the_share_of_rejected_rows_is_limited(tmp_path: Path) -> None:
    files = open_input(write_corpus(tmp_path / "c.jsonl", corpus(10, row4={"id": "d4", "text": ""})), Fields())
    assert plan_of(files, share=0.1).rejected == 1
    with pytest.raises(InputError, match=r"c.jsonl line 5: field 'text' is empty \(1 of 10 rows .* 9% are allowed\)"):
        plan_of(files, share=0.09)
    files = open_input(write_corpus(tmp_path / "c.jsonl", [{"id": "a"}]), Fields())
    with pytest.raises(InputError, match="1 of 1 rows cannot be encoded"):
        plan_of(files, share=1.0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.jsonl", None, "no such file"),
        ("c.bin", b"x", "its name does not say what it is"),
        ("empty.jsonl", b"\n\n", "has no row; there is nothing to encode"),
        ("empty.csv", b"", "the file is empty"),
        ("head.csv", b"id,text\n", "has no row"),
        ("c.csv", b"id,body\n1,x\n", "no column 'text' for the text; name it with --text-field ('id', 'body')"),
        ("c.tsv", b"key\ttext\n1\tx\n", "no column id or _id for ids; name it with --id-field, or use --row-ids"),
        ("c.parquet", b"PAR1", "cannot be read as Parquet"),
        ("c.jsonl.gz", b"\x1f\x8b\x08\x00", "compressed stream damaged"),
        ("folder", "folder", "has neither corpus.jsonl nor Parquet files"),
    ],
)
def test_an_input_that_cannot_be_read_is_one_line(tmp_path: Path, name: str, content: object, message: str) -> None:
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif content:
        (tmp_path / name).mkdir()
    with pytest.raises(InputError) as caught:
        plan_of(open_input(tmp_path / name, Fields()))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_column_of_numbers_is_no_text(tmp_path: Path) -> None:
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["x"]), pa.array(["y"])], names=["id", "text", "text"])
    pq.write_table(twice, tmp_path / "twice.parquet")
    with pytest.raises(InputError, match=r"twice.parquet: several columns are named 'text'"):
        plan_of(open_input(tmp_path / "twice.parquet", Fields()))
    pq.write_table(pa.table({"id": ["a"], "text": [[0.5]]}), tmp_path / "c.parquet")
    with pytest.raises(InputError, match="column 'text': expected texts, not list"):
        plan_of(open_input(tmp_path / "c.parquet", Fields()))
