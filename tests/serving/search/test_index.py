"""SearchIndex: what is built is what is found, and a killed build goes on to the same bytes."""

import json
import os
import signal
import sys
from pathlib import Path

import forked
import numpy as np
import pytest
from fake_embedder import FakeEmbedder, functions
from hypothesis import given, settings
from hypothesis import strategies as st

import gemma4vec
from gemma4vec.errors import InputError, WorkError
from gemma4vec.serving.search.documents import IndexedDocument
from gemma4vec.serving.search.index import SearchIndex
from gemma4vec.serving.search.storage import read_index


def test_search_finds_what_brute_force_finds(tmp_path):
    documents, embedder = functions(50), FakeEmbedder()
    index = SearchIndex.build(tmp_path / "index", documents, embedder, chunk=16)
    queries = embedder.encode_query(["one", "two", "three"])
    for vector, hits in zip(queries, index.search(queries, 7), strict=True):
        best = sorted(range(50), key=lambda row: -float(np.asarray(index.vectors_MD)[row] @ vector))[:7]
        assert [hit.document for hit in hits] == [documents[row] for row in best]
        assert [hit.rank for hit in hits] == list(range(1, 8))
        assert hits[0].score == pytest.approx(float(np.asarray(index.vectors_MD)[best[0]] @ vector), abs=1e-6)


def test_k_above_the_count_gives_all(tmp_path):
    index = SearchIndex.build(tmp_path / "index", functions(3), FakeEmbedder())
    assert len(index.search(FakeEmbedder().encode_query(["q"]), 99)[0]) == 3


def test_an_interrupted_build_goes_on_to_the_same_bytes(log_lines, tmp_path):
    documents = functions(100)
    SearchIndex.build(tmp_path / "whole", documents, FakeEmbedder(), chunk=16)
    seen: list[tuple[int, int]] = []
    with pytest.raises(KeyboardInterrupt):
        SearchIndex.build(tmp_path / "cut", documents, FakeEmbedder(fail_after=50), chunk=16)
    assert not (tmp_path / "cut").exists()
    second = FakeEmbedder()
    SearchIndex.build(tmp_path / "cut", documents, second, chunk=16, progress=lambda *at: seen.append(at))
    assert seen[0] == (48, 100) and seen[-1] == (100, 100)
    assert second.encoded == 52
    assert "continuing after 48" in log_lines[0]
    for name in ("vectors.npy", "documents.jsonl", "offsets.npy", "meta.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_killed_build_loses_at_most_one_chunk(tmp_path):
    script = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from fake_embedder import FakeEmbedder, functions
from gemma4vec.serving.search.index import SearchIndex
from gemma4vec.serving.search.storage import read_index

class Killed(FakeEmbedder):
    def encode_document(self, texts):
        if self.encoded >= 64:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode_document(texts)

SearchIndex.build(Path(sys.argv[1]), functions(100), Killed(), chunk=16)
"""
    source = Path(gemma4vec.__file__).parents[2]
    words = [sys.executable, "-c", script, str(tmp_path / "index"), str(Path(__file__).parents[2] / "helpers")]
    killed = forked.run(words, env={**os.environ, "PYTHONPATH": str(source)}, check=False)
    assert killed.returncode == -signal.SIGKILL
    embedder = FakeEmbedder()
    index = SearchIndex.build(tmp_path / "index", functions(100), embedder, chunk=16)
    assert embedder.encoded == 36 and index.meta.count == 100


@settings(max_examples=25, deadline=None)
@given(cut=st.integers(min_value=0, max_value=4000), garbage=st.booleans())
def test_a_torn_vector_file_never_ends_in_a_wrong_index(tmp_path_factory, cut, garbage):
    folder = tmp_path_factory.mktemp("torn")
    documents = functions(100)
    SearchIndex.build(folder / "whole", documents, FakeEmbedder(), chunk=16)
    with pytest.raises(KeyboardInterrupt):
        SearchIndex.build(folder / "cut", documents, FakeEmbedder(fail_after=99), chunk=16)
    torn = folder / ".cut.part" / "vectors.npy"
    data = torn.read_bytes()[: max(cut, 0)]
    torn.write_bytes(data + b"\0" * 100 if garbage else data)
    SearchIndex.build(folder / "cut", documents, FakeEmbedder(), chunk=16)
    assert (folder / "cut" / "vectors.npy").read_bytes() == (folder / "whole" / "vectors.npy").read_bytes()


@pytest.mark.parametrize("change", ["model", "documents"])
def test_unfinished_work_of_another_build_is_thrown_away(log_lines, tmp_path, change):
    documents = functions(40)
    with pytest.raises(KeyboardInterrupt):
        SearchIndex.build(tmp_path / "index", documents, FakeEmbedder(fail_after=20), chunk=16)
    embedder = FakeEmbedder("0" * 64 if change == "model" else "f" * 64)
    documents = documents if change == "model" else documents[1:]
    index = SearchIndex.build(tmp_path / "index", documents, embedder, chunk=16)
    assert "restarting .index.part" in log_lines[0]
    assert index.meta.count == len(documents)
    # Of another corpus, the 16 documents embedded (less the one that is gone) keep their vectors.
    assert embedder.encoded == (40 if change == "model" else 24)


def test_the_same_index_is_not_built_again_and_another_replaces_it(log_lines, tmp_path):
    documents = functions(10)
    SearchIndex.build(tmp_path / "index", documents, FakeEmbedder())
    again = FakeEmbedder()
    index = SearchIndex.build(tmp_path / "index", documents, again, source="new")
    assert again.encoded == 0 and index.meta.source == "new"
    again = FakeEmbedder()
    vectors = np.array(index.vectors_MD)
    replaced = SearchIndex.build(tmp_path / "index", [*documents[5:], *functions(12)[10:]], again)
    assert replaced.meta.count == 7 and "documents have changed" in log_lines[0]
    assert again.encoded == 2  # the others keep their vectors
    np.testing.assert_array_equal(replaced.vectors_MD[:5], vectors[5:])
    assert sorted(path.name for path in tmp_path.iterdir()) in (["index"], [".index.lock", "index"])


def test_two_builds_at_once_are_refused(tmp_path):
    from filelock import FileLock

    with FileLock(tmp_path / ".index.lock"), pytest.raises(InputError, match="another process"):
        SearchIndex.build(tmp_path / "index", functions(3), FakeEmbedder())


def test_an_index_of_another_model_is_refused(tmp_path):
    SearchIndex.build(tmp_path / "index", functions(3), FakeEmbedder())
    with pytest.raises(InputError, match="another model"):
        SearchIndex.open(tmp_path / "index", "0" * 64)
    assert SearchIndex.open(tmp_path / "index", "f" * 64).meta.count == 3


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("meta.json", b"{"),
        ("meta.json", b'{"format": 99}'),
        ("meta.json", b"[]"),
        ("vectors.npy", b""),
        ("vectors.npy", b"\x93NUMPY garbage"),
        ("offsets.npy", b"no array"),
        ("documents.jsonl", b"{}\n"),
    ],
)
def test_a_damaged_index_is_one_line(tmp_path, name, content):
    SearchIndex.build(tmp_path / "index", functions(3), FakeEmbedder())
    (tmp_path / "index" / name).write_bytes(content)
    with pytest.raises(InputError, match="damaged") as failure:
        SearchIndex.open(tmp_path / "index")
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("change", [{"fingerprint": {"a": "b"}}, {"count": "3"}, {"dimension": True}, {"model": None}])
def test_a_description_with_other_types_is_damage(tmp_path, change):
    SearchIndex.build(tmp_path / "index", functions(3), FakeEmbedder())
    file = tmp_path / "index" / "meta.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | change), encoding="utf-8")
    with pytest.raises(InputError, match="damaged"):
        SearchIndex.open(tmp_path / "index")


def test_a_place_of_documents_that_is_wrong_is_damage(tmp_path):
    SearchIndex.build(tmp_path / "index", functions(3), FakeEmbedder())
    file = tmp_path / "index" / "offsets.npy"
    offsets = np.load(file)
    offsets[1] = offsets[2]
    np.save(file, offsets)
    with pytest.raises(InputError, match="damaged \\(document 1: "):
        read_index(tmp_path / "index")[2][0]


def test_truncated_vectors_and_missing_files_are_noticed(tmp_path):
    SearchIndex.build(tmp_path / "index", functions(3), FakeEmbedder())
    vectors = tmp_path / "index" / "vectors.npy"
    vectors.write_bytes(vectors.read_bytes()[:-4])
    with pytest.raises(InputError, match="damaged"):
        SearchIndex.open(tmp_path / "index")
    vectors.unlink()
    with pytest.raises(InputError, match="damaged"):
        SearchIndex.open(tmp_path / "index")
    with pytest.raises(InputError, match="not a search index"):
        SearchIndex.open(tmp_path)


def test_vectors_that_are_not_unit_length_stop_the_build(tmp_path):
    class Broken(FakeEmbedder):
        def encode_document(self, texts):
            vectors = super().encode_document(texts)
            vectors[1] = np.nan
            return vectors

    with pytest.raises(WorkError, match=r"1 of 3 .*p/m.py:f1"):
        SearchIndex.build(tmp_path / "index", functions(3), Broken())


def test_saving_vectors_that_exist_equals_building(tmp_path):
    documents = functions(9)
    built = SearchIndex.build(tmp_path / "built", documents, FakeEmbedder())
    saved = SearchIndex.save(
        tmp_path / "saved", documents, np.array(built.vectors_MD), model="fake", fingerprint="f" * 64
    )
    assert saved.meta == built.meta
    for name in ("vectors.npy", "documents.jsonl", "meta.json"):
        assert (tmp_path / "saved" / name).read_bytes() == (tmp_path / "built" / name).read_bytes()


def test_bad_k_and_dimension_are_one_line(tmp_path):
    index = SearchIndex.build(tmp_path / "index", functions(3), FakeEmbedder())
    with pytest.raises(InputError, match="at least 1"):
        index.search(FakeEmbedder().encode_query(["q"]), 0)
    with pytest.raises(InputError, match="dimension 8"):
        index.search(np.ones((1, 4), np.float32), 3)


@pytest.mark.parametrize("text", ["", "\ud800 lone", "\x00\x1b[31m", "x" * 100_000, "zwei\nZeilen \U0001f600"])
def test_any_text_comes_back_as_it_was(tmp_path, text):
    document = IndexedDocument("id", text, title=text)
    index = SearchIndex.build(tmp_path / "index", [document], FakeEmbedder())
    hit = index.search(FakeEmbedder().encode_query(["q"]), 1)[0][0]
    assert hit.document == document
    assert json.loads(json.dumps(hit.as_dict()))["text"] == text


def test_an_empty_corpus_gives_no_hits(tmp_path):
    index = SearchIndex.build(tmp_path / "index", [], FakeEmbedder())
    assert index.search(FakeEmbedder().encode_query(["q"]), 5) == [[]]


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(WorkError, match="no space left"):
        SearchIndex.build(tmp_path / "index", functions(3), FakeEmbedder())


def test_no_temporary_path_is_left_in_the_index(tmp_path: Path):
    SearchIndex.build(tmp_path / "index", functions(3), FakeEmbedder())
    assert sorted(path.name for path in (tmp_path / "index").iterdir()) == [
        "documents.jsonl",
        "meta.json",
        "offsets.npy",
        "vectors.npy",
    ]
