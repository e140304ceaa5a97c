"""A bulk encoding: its files, the same bytes however it went, and everything that is refused in one line."""

import errno
import json
import os
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from encoded_folders import corpus, sums, write_corpus
from stub_encoder import StubOpener

from gemma4vec.errors import InputError, WorkError
from gemma4vec.serving.encode import encode_file as encoding
from gemma4vec.serving.encode import shard_files
from gemma4vec.serving.encode.check_output import check_output
from gemma4vec.serving.encode.encode_file import EncodeSettings, Encoding, encode_file, parse_part
from gemma4vec.serving.encode.shard_files import note_path
from gemma4vec.text.prompts import Document

SETTINGS = EncodeSettings(shard_rows=8)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "in" / "c.jsonl", corpus(30))


def encode(source: Path, out: Path, settings: EncodeSettings = SETTINGS, opener: StubOpener | None = None, **how):
    return encode_file(opener or StubOpener(), source, out, settings, **how)


def expected(source: Path, shard_rows: int = 8, queries: bool = False) -> np.ndarray:
    """Vectors of the rows as the model gives them, shard by shard."""
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    documents = [Document(row["text"], None if queries else row["title"]) for row in rows]
    parts = [documents[start : start + shard_rows] for start in range(0, len(documents), shard_rows)]
    return np.concatenate([StubOpener()().encode(part, queries, characters=0).vectors_ND for part in parts])


def test_parquet_has_a_row_for_each_text(source: Path, tmp_path: Path) -> None:
    made = encode(source, tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / "vectors")
    assert str(table.schema.field("vector").type) == "fixed_size_list<element: float not null>[8]"
    assert table["id"].to_pylist() == [f"d{i}" for i in range(30)]
    assert (np.array(table["vector"].to_pylist(), dtype=np.float32) == expected(source)).all()
    lengths = [len(f"{row['title'] or ''} {row['text']}".strip()) for row in corpus(30)]
    assert table["tokens"].to_pylist() == [min(length, 12) for length in lengths]
    assert table["truncated"].to_pylist() == [length > 12 for length in lengths]
    assert table.schema.metadata[b"gemma4vec.fingerprint"] == b"f" * 16
    value = made.as_json()
    assert (value["shards"], value["shards_done"], value["encoded"]) == (4, 4, 30)
    assert value["tokens"] == sum(min(length, 12) for length in lengths)


def test_queries_have_their_prompt_and_no_title(source: Path, tmp_path: Path) -> None:
    encode(source, tmp_path / "out", replace(SETTINGS, input_type="query", file_format="npy"))
    found = np.concatenate([np.load(file) for file in sorted((tmp_path / "out" / "vectors").iterdir())])
    assert (found == expected(source, queries=True)).all()


def test_npy_shards_have_ids_next_to_them(source: Path, tmp_path: Path) -> None:
    encode(source, tmp_path / "out", replace(SETTINGS, file_format="npy", dtype="f16"))
    vectors_ND = np.load(tmp_path / "out" / "vectors" / "000001.npy")
    assert vectors_ND.dtype == np.float16 and (vectors_ND == expected(source)[8:16].astype(np.float16)).all()
    lines = (tmp_path / "out" / "ids" / "000001.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [f"d{i}" for i in range(8, 16)]
    assert check_output(tmp_path / "out").good


def test_half_floats_are_half_floats_in_parquet(source: Path, tmp_path: Path) -> None:
    encode(source, tmp_path / "out", replace(SETTINGS, dtype="f16"))
    assert "halffloat" in str(pq.read_schema(tmp_path / "out" / "vectors" / "000000.parquet").field("vector").type)
    assert check_output(tmp_path / "out").good


def test_leading_dimensions_are_of_length_one_again(source: Path, tmp_path: Path) -> None:
    encode(source, tmp_path / "out", replace(SETTINGS, dimension=4, file_format="npy"))
    found = np.load(tmp_path / "out" / "vectors" / "000000.npy")
    wanted = expected(source)[:8, :4]
    np.testing.assert_allclose(found, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), rtol=1e-6)
    with pytest.raises(InputError, match="--dimension 5: stub was not trained for it; it has 4, 8"):
        encode(source, tmp_path / "other", replace(SETTINGS, dimension=5))
    assert not (tmp_path / "other").exists()


def test_lance_is_one_table_of_all_shards(source: Path, tmp_path: Path) -> None:
    lancedb = pytest.importorskip("lancedb")
    encode(source, tmp_path / "out", replace(SETTINGS, file_format="lance"))
    table = lancedb.connect(str(tmp_path / "out" / "lance")).open_table("vectors").to_arrow()
    assert table["id"].to_pylist() == [f"d{i}" for i in range(30)]
    assert (np.array(table["vector"].to_pylist(), dtype=np.float32) == expected(source)).all()
    first = sums(tmp_path / "out")["lance/content.json"]
    assert check_output(tmp_path / "out").good
    other = encode(source, tmp_path / "two", replace(SETTINGS, file_format="lance"), part=(1, 2))
    assert other.done == 2 and not (tmp_path / "two" / "lance").exists()
    encode(source, tmp_path / "two", replace(SETTINGS, file_format="lance"), part=(2, 2))
    assert sums(tmp_path / "two")["lance/content.json"] == first
    (tmp_path / "two" / "lance" / "content.json").write_text('{"rows": 30, "sha256": "0"}')
    assert "holds other ids or vectors" in check_output(tmp_path / "two").line(tmp_path)


def test_parts_and_interruptions_give_the_same_bytes(source: Path, tmp_path: Path) -> None:
    encode(source, tmp_path / "whole")
    assert encode(source, tmp_path / "parts", part=(2, 3)).done == 1
    assert {file.stem for file in (tmp_path / "parts" / "vectors").iterdir()} == {"000001"}
    for part in ((1, 3), (3, 3), (3, 3)):
        encode(source, tmp_path / "parts", part=part)
    assert sums(tmp_path / "parts") == sums(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        interrupted_after(2, source, tmp_path / "stopped")
    assert len(list((tmp_path / "stopped" / "shards").iterdir())) == 2
    again = encode(source, tmp_path / "stopped")
    assert [note.shard for note in again.notes] == [2, 3] and sums(tmp_path / "stopped") == sums(tmp_path / "whole")


def interrupted_after(count: int, source: Path, out: Path) -> Encoding:
    """Encode with a model that Ctrl-C stops in its third shard."""

    class Stopping(StubOpener):
        def __call__(self, threads=None, worker=0):
            model, calls = super().__call__(), []
            original = model.encode

            def stop(*words, **settings):
                calls.append(1)
                if len(calls) > count:
                    raise KeyboardInterrupt
                return original(*words, **settings)

            model.encode = stop
            return model

    return encode(source, out, opener=Stopping())


def test_rejected_rows_are_listed_by_shard(tmp_path: Path) -> None:
    rows = corpus(20, row3={"id": "d3", "text": ""}, row9={"id": "d8", "text": "again"})
    source = write_corpus(tmp_path / "c.jsonl", rows)
    made = encode(source, tmp_path / "out", replace(SETTINGS, max_bad_share=0.1))
    assert made.as_json()["rejected"] == 2 and made.as_json()["encoded"] == 18
    listed = (tmp_path / "out" / "rejected" / "000000.jsonl").read_text()
    assert json.loads(listed) == {"place": "c.jsonl line 4", "id": "d3", "reason": "field 'text' is empty"}
    assert sorted(os.listdir(tmp_path / "out" / "rejected")) == ["000000.jsonl", "000001.jsonl"]
    assert check_output(tmp_path / "out").as_json()["rejected"] == 2


def test_a_shard_of_rejected_rows_is_empty(tmp_path: Path) -> None:
    source = write_corpus(tmp_path / "c.jsonl", [*corpus(8), {"id": "x"}])
    encode(source, tmp_path / "out", replace(SETTINGS, max_bad_share=0.5))
    assert pq.read_table(tmp_path / "out" / "vectors" / "000001.parquet").num_rows == 0
    assert check_output(tmp_path / "out").good


OTHER_PLANS = [
    ({"shard_rows": 9}, "encoding.shard_rows = 8, this command has 9"),
    ({"input_type": "query"}, "encoding.input_type = 'document', this command has 'query'"),
    ({"dtype": "f16"}, "encoding.dtype = 'f32', this command has 'f16'"),
    ({"file_format": "npy"}, "encoding.format = 'parquet', this command has 'npy'"),
    ({"dimension": 4}, "encoding.dimension = 8, this command has 4"),
]


@pytest.mark.parametrize(("changes", "message"), OTHER_PLANS)
def test_another_plan_is_refused_by_name(source: Path, tmp_path: Path, changes: dict, message: str) -> None:
    encode(source, tmp_path / "out", part=(1, 4))
    before = sums(tmp_path / "out")
    with pytest.raises(InputError, match="out was planned with") as caught:
        encode(source, tmp_path / "out", replace(SETTINGS, **changes))
    assert message in str(caught.value) and sums(tmp_path / "out") == before


def test_another_model_version_or_input_is_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode(source, tmp_path / "out", part=(1, 4))
    with pytest.raises(InputError, match=r"model.fingerprint = 'f{16}', this command has 'other'"):
        encode(source, tmp_path / "out", opener=StubOpener("other"))
    with monkeypatch.context() as patch:
        patch.setattr(encoding, "installed_version", lambda name: "9.9")
        with pytest.raises(InputError, match=r"versions.torch = '[^']*', this command has '9.9'"):
            encode(source, tmp_path / "out")
    source.write_text(source.read_text().replace("text 1 ", "text one "))
    with pytest.raises(InputError, match="was planned for another input"):
        encode(source, tmp_path / "out")


def test_an_input_that_changes_meanwhile_stops_the_job(source: Path, tmp_path: Path) -> None:
    class Changing(StubOpener):
        def __call__(self, threads=None, worker=0):
            model = super().__call__()
            original = model.encode

            def change(*words, **settings):
                with source.open("a") as stream:
                    stream.write("\n")
                return original(*words, **settings)

            model.encode = change
            return model

    with pytest.raises(InputError, match="changed while it was encoded"):
        encode(source, tmp_path / "out", opener=Changing())
    assert not (tmp_path / "out" / "shards").exists()


def test_a_corrupted_shard_is_named_and_made_again(source: Path, tmp_path: Path, log_lines: list[str]) -> None:
    encode(source, tmp_path / "out")
    good = sums(tmp_path / "out")
    file = tmp_path / "out" / "vectors" / "000002.parquet"
    raw = bytearray(file.read_bytes())
    raw[50] ^= 1
    file.write_bytes(raw)
    found = check_output(tmp_path / "out")
    assert [one.shard for one in found.damaged] == [2] and not found.good
    line = found.line(tmp_path / "out")
    assert "shard 2: " in line and "another SHA-256" in line and f"remove {note_path(tmp_path / 'out', 2)}" in line
    assert [note.shard for note in encode(source, tmp_path / "out").notes] == [2]
    assert sums(tmp_path / "out") == good and any("shard 2 is made again" in line for line in log_lines)
    file.write_bytes(raw[:-1])
    assert "bytes, not" in check_output(tmp_path / "out").line(tmp_path)
    file.unlink()
    assert "cannot be read" in check_output(tmp_path / "out").line(tmp_path)
    note_path(tmp_path / "out", 2).write_text("{")
    assert "is damaged" in check_output(tmp_path / "out").line(tmp_path)
    note_path(tmp_path / "out", 2).unlink()
    assert "1 of 4 shards are missing, first 2" in check_output(tmp_path / "out").line(tmp_path)


def test_a_check_finds_vectors_that_are_not_of_length_one(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gemma4vec.serving.encode.encode_shard.check_vectors", lambda *_: None)
    encode(source, tmp_path / "out", opener=StubOpener(broken="text 17 "))
    assert "1 of 8 vectors are not of length one, first id 'd17'" in check_output(tmp_path / "out").line(tmp_path)


def test_a_check_counts_ids_of_several_shards(tmp_path: Path) -> None:
    source = write_corpus(tmp_path / "c.jsonl", corpus(20, row12={"id": "d1", "text": "again"}))
    encode(source, tmp_path / "out")
    found = check_output(tmp_path / "out")
    assert found.good and found.repeated_ids == 1


def test_a_vector_that_is_not_finite_stops_the_shard(source: Path, tmp_path: Path) -> None:
    with pytest.raises(WorkError) as caught:
        encode(source, tmp_path / "out", opener=StubOpener(broken="text 17 "))
    line = str(caught.value)
    assert "c.jsonl line 18 (id 'd17'): stub returned a vector of length nan" in line and "\n" not in line
    assert sorted(os.listdir(tmp_path / "out" / "shards")) == ["000000.json", "000001.json"]
    assert os.listdir(tmp_path / "out" / "leases") == []


@pytest.mark.parametrize("when", [1, 3, 5, 7])
def test_a_full_disk_leaves_nothing_half_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: int
) -> None:
    """The disk is full at the `when`th file: the plan, a shard's vectors or its note."""
    encode(source, tmp_path / "whole")
    calls = []
    original = os.fsync

    def full(descriptor: int) -> None:
        calls.append(1)
        if len(calls) >= 2 * when:  # a file and its folder's name
            raise OSError(errno.ENOSPC, "No space left on device")
        original(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(WorkError, match="no space left on the disk"):
            encode(source, tmp_path / "out")
    left = sums(tmp_path / "out")
    assert left.items() <= sums(tmp_path / "whole").items()
    assert not [file for file in (tmp_path / "out").rglob("*") if file.suffix in (".part", ".lease")]
    encode(source, tmp_path / "out")
    assert sums(tmp_path / "out") == sums(tmp_path / "whole")


def test_space_is_counted_before_the_work(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(encoding, "check_writable", lambda folder, needed=0: asked.append(needed))
    encode(source, tmp_path / "out", part=(1, 2))
    encode(source, tmp_path / "out", replace(SETTINGS))
    assert asked == [0, 16 * 8 * 4, 0, 14 * 8 * 4]


def test_folders_that_are_no_output_are_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file; name a folder"):
        encode(source, tmp_path / "file")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("x")
    with pytest.raises(InputError, match="holds other files and no plan"):
        encode(source, tmp_path / "full")
    with pytest.raises(InputError, match="holds the input"):
        encode(source, source.parent)
    encode(source, tmp_path / "out", part=(1, 4))
    plan = tmp_path / "out" / "plan.json"
    whole = json.loads(plan.read_text())
    for key in whole["encoding"]:
        if key in ("input_type", "format", "dtype", "shard_rows", "dimension"):
            less = {name: value for name, value in whole["encoding"].items() if name != key}
            plan.write_text(json.dumps(whole | {"encoding": less}))
            with pytest.raises(InputError, match=rf"plan.json is damaged \('{key}'\)"):
                encode(source, tmp_path / "out")
    plan.write_text("{")
    with pytest.raises(InputError, match=r"plan.json is damaged"):
        encode(source, tmp_path / "out")
    with pytest.raises(InputError, match="has no plan of a bulk encoding"):
        check_output(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0", "1", "a/b", "-1/4", "1/4/2", ""])
def test_a_part_is_from_1_to_n(text: str) -> None:
    assert parse_part("3/8") == (3, 8)
    with pytest.raises(InputError, match="write I/N"):
        parse_part(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_type": "text"}, "--input-type text: use document or query"),
        ({"file_format": "csv"}, "--format csv: use parquet or npy or lance"),
        ({"dtype": "int8"}, "--dtype int8: use f32 or f16"),
        ({"shard_rows": 0}, "--shard-rows must be 1 or more"),
    ],
)
def test_settings_that_mean_nothing_are_refused(source: Path, tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        encode(source, tmp_path / "out", replace(SETTINGS, **changes))


def peak(source: Path, out: Path) -> int:
    """Bytes that an encoding allocates at most."""
    tracemalloc.start()
    try:
        encode(source, out, EncodeSettings(shard_rows=100))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the rows take, and neither the model nor Arrow's own memory, which tracemalloc does not see."""
    monkeypatch.setattr(shard_files, "_parquet", lambda table: b"")
    small = write_corpus(tmp_path / "small.jsonl", corpus(300))
    large = write_corpus(tmp_path / "large.jsonl", corpus(3_000))
    peak(small, tmp_path / "first")  # what is imported and cached once
    few, many = peak(small, tmp_path / "few"), peak(large, tmp_path / "many")
    assert large.stat().st_size > 9 * small.stat().st_size and many < 1.1 * few + 50_000
