"""A store gives the rows that were put in, whoever reads them and however often; it is made again when it must be."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemma4vec.data.batching.mixture import MixedRows, Part
from gemma4vec.data.batching.plain_texts import TextsOnDisk, unique_texts
from gemma4vec.data.loading import load_rows as sources
from gemma4vec.data.loading.load_rows import load_sources, read_source
from gemma4vec.data.rows.row_store import StoredRows, open_or_write, open_store, write_store
from gemma4vec.data.rows.rows import Row, content_hash, read_rows, write_rows
from gemma4vec.errors import InputError
from gemma4vec.machine.file_hashes import file_hash
from gemma4vec.recipe.sources import source_of
from gemma4vec.text.pretokenized import PretokenizedText
from gemma4vec.text.prompts import Document
from gemma4vec.text.text_hash import text_key

TEXT = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=20)
TOKENS = st.builds(
    PretokenizedText,
    st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=5),
    st.integers(0, 3),
    st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
)
DOCUMENT = st.one_of(st.builds(Document, TEXT, st.one_of(st.none(), TEXT)), st.builds(Document, TOKENS, st.none()))
ROW = st.builds(
    Row,
    st.one_of(TEXT, TOKENS),
    st.lists(DOCUMENT, max_size=3),
    st.lists(DOCUMENT, max_size=3),
    st.one_of(st.none(), TEXT),
    st.one_of(st.none(), TEXT),
)


def exact(row: Row) -> list[tuple[object, ...]]:
    """Everything about a row's texts, tokens told apart from strings that look like them."""
    texts = [(row.query, None), *row.pos, *row.neg]
    return [(t, title, *((t.ids, t.prompt, t.key) if isinstance(t, PretokenizedText) else ())) for t, title in texts]


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(ROW, max_size=6))
def test_what_goes_in_comes_out(rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("store") / "s"
    store = write_store(folder, rows, {"key": "k"})
    assert store == rows and list(map(exact, store)) == list(map(exact, rows))
    assert [row.task for row in store] == [row.task for row in rows]
    assert store.facts["content_hash"] == content_hash(rows)
    assert store.negative_counts().tolist() == [len(row.neg) for row in rows]
    assert store.positive_counts().tolist() == [len(row.pos) for row in rows]
    texts = [text for row in rows for text in (row.query, *row.pos, *row.neg)]
    assert store.folded_keys().tolist() == list(map(text_key, texts))
    groups = store.group_numbers().tolist()
    assert [store.facts["group_names"][n] if n >= 0 else None for n in groups] == [row.group for row in rows]
    opened = open_store(folder, "k")
    assert opened == rows and open_store(folder, "other") is None
    assert store.first(2) == rows[:2] and store[-1:] == rows[-1:]


def test_groups_of_mixed_rows_agree_in_memory_and_on_disk(tmp_path: Path) -> None:
    rows = [Row(f"q{i}", [Document("p")], group=group) for i, group in enumerate("abacb")] + [Row("x", [Document("p")])]
    store = write_store(tmp_path / "s", rows[3:], {})
    mixed = MixedRows([Part("one", rows[:3]), Part("two", store)])
    assert mixed.group_numbers().tolist() == [1, 2, 1, 3, 2, -1]
    assert mixed.group_numbers().tolist() == MixedRows([Part("all", rows)]).group_numbers().tolist()


@pytest.mark.parametrize("name", ["texts.bin", "ends.bin", "first.bin", "folded.bin", "store.json"])
def test_a_damaged_store_is_not_used(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "s"
    write_store(folder, [Row("q", [Document("p")])], {"key": "k"})
    file = folder / name
    file.write_bytes(file.read_bytes()[:-3])
    assert open_store(folder, "k") is None


def test_several_that_want_a_store_at_once_write_it_once(tmp_path: Path) -> None:
    written = []

    def write() -> StoredRows:
        written.append(1)
        time.sleep(0.2)
        return write_store(tmp_path / "s", [Row("q", [Document("p")])], {"key": "k"})

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: open_or_write(tmp_path / "s", "k", write), range(4)))
    assert len(written) == 1 and all(len(store) == 1 for store in found)


def test_the_first_rows_share_the_mapped_files(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s", [Row(f"q{n}", [Document("p")]) for n in range(5)], {})
    fewer = store.first(2)
    assert fewer._texts is store._texts and len(fewer) == 2 and len(store) == 5
    assert [row.query for row in fewer] == ["q0", "q1"] and fewer.first(9) is fewer


def test_large_files_give_the_same_as_small_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [Row(f"q{i}", [Document(f"p{i}", "t")], [Document("n")] * (i % 3), group=str(i % 4)) for i in range(40)]
    write_rows(tmp_path / "r.jsonl.gz", rows)
    source = source_of(name="s", path=str(tmp_path / "r.jsonl.gz"))
    small = load_sources([source])
    monkeypatch.setattr(sources, "LARGE_BYTES", 0)
    large = load_sources([source])
    assert isinstance(large.rows.parts[0].rows, StoredRows) and large.rows == small.rows
    assert large.sources == small.sources
    assert np.array_equal(large.rows.negative_counts(), small.rows.negative_counts())
    capped = load_sources([source.model_copy(update={"max_rows": 7})])
    assert capped.rows == read_rows(tmp_path / "r.jsonl.gz").rows[:7]


def test_a_store_is_used_again_until_data_or_settings_change(
    log_lines: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "LARGE_BYTES", 0)
    file = tmp_path / "r.csv"
    file.write_text("query,pos,other\na,b,c\n")
    source = source_of(name="s", source="csv", path=str(file))
    assert read_source(source).rows[0].pos == [Document("b")]
    assert read_source(source).rows[0].pos == [Document("b")]
    assert len(log_lines) == 1 and "reading" in log_lines[0]
    stat = file.stat()
    file.write_text("query,pos,other\na,x,c\n")  # as long as before, and its time set back
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert read_source(source).rows[0].pos == [Document("x")]
    assert len(log_lines) == 2
    other = source_of(name="s", source="csv", path=str(file), columns={"query": "query", "pos": "other"})
    assert read_source(other).rows[0].pos == [Document("c")]


def test_bad_rows_of_a_store_are_counted_and_refused_as_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "LARGE_BYTES", 0)
    file = tmp_path / "r.jsonl"
    file.write_text('{"query": "q", "pos": ["p"]}\n' * 9 + '{"query": "q", "pos": [5]}\n')
    allowed = source_of(name="s", path=str(file), max_bad_share=0.1)
    read = read_source(allowed)
    assert len(read.rows) == 9 and read.bad == 1
    strict = allowed.model_copy(update={"max_bad_share": 0.0})
    with pytest.raises(InputError, match=r"r\.jsonl line 10, field 'pos\[0\]': .* \(1 of 10 rows are bad"):
        read_source(strict)  # though a store is there
    write_rows(tmp_path / "empty.jsonl", [])
    with pytest.raises(InputError, match=r"empty\.jsonl: the file is empty"):
        read_source(source_of(name="s", path=str(tmp_path / "empty.jsonl")))


def test_texts_on_disk_are_those_in_memory(tmp_path: Path) -> None:
    rows = [Row(f"q{i % 7}", [Document(f"p{i}", "t" if i % 2 else None)], [Document("n")]) for i in range(20)]
    alone = [Row(text, []) for text in ("n", "alone", "q1")]
    store = write_store(tmp_path / "s", rows, {})
    for which in ("all", "queries", "documents"):
        memory = unique_texts(MixedRows([Part("a", alone)]), MixedRows([Part("b", rows)]), which)
        disk = unique_texts(MixedRows([Part("a", alone)]), MixedRows([Part("b", store)]), which)
        assert list(disk) == list(memory) and isinstance(disk, TextsOnDisk) and disk[1:3] == memory[1:3]


def test_hashes_of_files_are_remembered_until_they_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gemma4vec.machine import file_hashes as stamps

    file = tmp_path / "f"
    file.write_bytes(b"one")
    first = file_hash(file)
    monkeypatch.setattr(stamps, "YOUNG_SECONDS", -1.0)
    assert file_hash(file) == first
    monkeypatch.setattr(stamps, "sha256_file", lambda path: "never asked")
    assert file_hash(file) == first
    file.write_bytes(b"two")
    assert file_hash(file) == "never asked"
    with pytest.raises(InputError, match="cannot be read"):
        file_hash(tmp_path / "missing")
