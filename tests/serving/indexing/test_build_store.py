"""`gemma4vec index` without a model: corpora and encoded shards become stores that `search` reads."""

import json
import sys

import numpy as np
import pytest
from fake_embedder import FakeEmbedder

from gemma4vec.errors import InputError
from gemma4vec.serving.encode.input_rows import Fields
from gemma4vec.serving.encode.shard_files import ShardRows, write_shard
from gemma4vec.serving.http.searcher import open_searcher
from gemma4vec.serving.indexing.build_store import build_store
from gemma4vec.serving.indexing.corpus_rows import open_corpus, parse_fields, read_queries
from gemma4vec.serving.search.index import SearchIndex
from gemma4vec.serving.search.session import SearchSession
from gemma4vec.serving.search.store_index import StoreIndex, fit_dimension, open_for
from gemma4vec.serving.store.filters import parse_filter


class Embedder(FakeEmbedder):
    """A fake model of 64 dimensions whose vectors depend on the text alone."""

    dimension = 64

    def describe(self):
        return {"prompts": {"document": "doc: "}}

    def encode_document(self, texts):
        if self.fail_after is not None and self.encoded + len(texts) > self.fail_after:
            raise KeyboardInterrupt
        self.encoded += len(texts)
        return self._vectors([text.text for text in texts])

    def encode_query(self, texts, progress=None):
        return self._vectors(texts)

    def _vectors(self, texts):
        found = [np.random.default_rng(list(text.encode("utf-8", "replace"))).standard_normal(64) for text in texts]
        vectors = np.stack(found).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def write_corpus(folder, count=40, broken=0):
    lines = [
        {"_id": f"d{i}", "title": f"t{i}", "text": f"text {i}", "metadata": {"year": 2000 + i % 5}, "language": "de"}
        for i in range(count)
    ]
    lines += [{"_id": f"bad{i}", "text": ""} for i in range(broken)]
    folder.mkdir(exist_ok=True)
    (folder / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    queries = [{"_id": f"q{i}", "text": f"question {i}"} for i in range(30)]
    (folder / "queries.jsonl").write_text("".join(json.dumps(line) + "\n" for line in queries))
    return folder


FIELDS = ["year:int", "language:text"]


def corpus(folder):
    return open_corpus(folder, parse_fields(FIELDS), Fields())


@pytest.mark.parametrize("place", ["{}/store", "lance:{}/lance#rows"])
def test_a_beir_folder_becomes_a_store_that_search_reads(tmp_path, place, log_lines):
    folder, embedder, place = write_corpus(tmp_path / "beir", broken=2), Embedder(), place.format(tmp_path)
    queries = read_queries(folder, 20)
    made = build_store(place, corpus(folder), embedder, queries=queries)
    assert (made.rows, made.added, made.left_out, made.index) == (40, 40, 2, "exact")
    assert made.gate is not None and made.gate.source == "queries" and made.gate.recall == 1.0
    assert any("left out: corpus.jsonl line 41" in line for line in log_lines)
    _, index = open_for(embedder, place)
    assert isinstance(index, StoreIndex) and "recall@10 1.000" in index.about()
    assert index.store.meta.prompts == {"document": "doc: "}
    session = SearchSession(embedder, index, 3, parse_filter("year = 2003"))
    hits = session.ask("text 8").hits
    assert hits[0].document.text == "text 8" and hits[0].document.title == "t8" and hits[0].score > 0.999
    assert [int(hit.document.id[1:]) % 5 for hit in hits] == [3, 3, 3]
    index.store.close()


def test_search_and_the_server_read_a_store_of_product_codes(tmp_path):
    folder, embedder, place = write_corpus(tmp_path / "beir", count=60), Embedder(), str(tmp_path / "store")
    made = build_store(place, corpus(folder), embedder, index="pq", queries=read_queries(folder, 20))
    assert made.index == "pq" and made.gate is not None and made.gate.passed
    _, index = open_for(embedder, place)
    assert "index pq" in index.about()
    assert SearchSession(embedder, index, 3, None).ask("text 8").hits[0].document.text == "text 8"
    index.store.close()
    opened = open_searcher(place, embedder.fingerprint, 64)
    assert opened.about["index"] == "pq" and opened.about["recall"]["passed"]
    hits = opened.searcher.search(embedder.encode_query(["text 9"]), 2, parse_filter("year = 2004"))[0]
    assert hits[0].document.text == "text 9" and int(hits[1].document.id[1:]) % 5 == 4


def test_an_index_that_cannot_be_built_is_refused_before_a_text_is_embedded(tmp_path, monkeypatch):
    folder, embedder = write_corpus(tmp_path / "beir"), Embedder()
    monkeypatch.setitem(sys.modules, "faiss", None)
    for index, message in (("pq", "needs faiss"), ("pqq", "has no index 'pqq'")):
        with pytest.raises(InputError, match=message):
            build_store(str(tmp_path / "store"), corpus(folder), embedder, index=index)
    assert embedder.encoded == 0


def test_a_killed_build_goes_on_and_unchanged_rows_keep_their_vectors(tmp_path, monkeypatch):
    monkeypatch.setattr("gemma4vec.serving.indexing.build_store.CHUNK", 16)
    folder, place = write_corpus(tmp_path / "beir"), str(tmp_path / "store")
    with pytest.raises(KeyboardInterrupt):
        build_store(place, corpus(folder), Embedder(fail_after=20))
    embedder = Embedder()
    assert build_store(place, corpus(folder), embedder).rows == 40 and embedder.encoded == 24
    path = folder / "corpus.jsonl"
    path.write_text(path.read_text().replace('"text 7"', '"text 7b"').replace('"year": 2004', '"year": 2014', 1))
    embedder = Embedder()
    again = build_store(place, corpus(folder), embedder)
    assert (again.rows, again.added, embedder.encoded) == (40, 2, 2)
    fresh = Embedder()
    assert build_store(place, corpus(folder), fresh, fresh=True).added == 40


def test_another_model_and_bad_fields_are_one_line(tmp_path):
    folder, place = write_corpus(tmp_path / "beir"), str(tmp_path / "store")
    build_store(place, corpus(folder), Embedder())
    with pytest.raises(InputError, match="another model"):
        build_store(place, corpus(folder), Embedder("0" * 64))
    with pytest.raises(InputError, match="another model"):
        open_for(Embedder("0" * 64), place)
    with pytest.raises(InputError, match=r"line 1: field 'language' is 'de', not int"):
        build_store(str(tmp_path / "x"), open_corpus(folder, {"language": "int"}, Fields()), Embedder())
    with pytest.raises(InputError, match="NAME:TYPE"):
        parse_fields(["year"])
    with pytest.raises(InputError, match="reads JSONL"):
        (tmp_path / "a.csv").write_text("id,text\n1,x\n")
        open_corpus(tmp_path / "a.csv", {"year": "int"}, Fields())


@pytest.fixture
def encoded(tmp_path):
    """An encoded folder of two shards, its plan written by hand."""

    def make(file_format="parquet", dimension=64, **changed):
        out = tmp_path / f"encoded-{file_format}-{dimension}-{len(changed)}"
        out.mkdir()
        encoding = {"input_type": "document", "prompt": "", "dimension": dimension, "dtype": "f16", "shard_rows": 20}
        value = {
            "format": 1,
            "input": {"sha256": "0" * 64},
            "encoding": {**encoding, "format": file_format, **changed},
            "model": {"name": "fake", "fingerprint": "f" * 64},
            "versions": {},
            "rows": 40,
            "rejected": 0,
            "characters": 400,
            "places": [[0, 0, 0], [0, 1, 1]],
        }
        (out / "plan.json").write_text(json.dumps(value))
        from gemma4vec.serving.encode.plan import read_plan

        plan = read_plan(out)
        whole = Embedder()._vectors([f"text {i}" for i in range(40)])[:, :dimension]
        whole /= np.linalg.norm(whole, axis=1, keepdims=True)
        for shard in range(2):
            rows = slice(20 * shard, 20 * shard + 20)
            ids = [f"d{i}" for i in range(40)[rows]]
            tokens = np.arange(40, dtype=np.int32)[rows]
            cut = np.zeros(20, bool)
            write_shard(out, plan, shard, ShardRows(ids, whole[rows].astype(np.float16), tokens, cut, []))
        return out

    return make


@pytest.mark.parametrize("file_format", ["parquet", "npy"])
@pytest.mark.parametrize("dimension", [64, 32])
def test_shards_of_a_bulk_encoding_become_a_store(tmp_path, encoded, file_format, dimension):
    place = str(tmp_path / "store")
    made = build_store(place, encoded(file_format, dimension), Embedder())
    assert (made.rows, made.added) == (40, 40) and made.gate is not None and made.gate.source == "documents"
    embedder, index = open_for(Embedder(), place)
    assert embedder.dimension == dimension and isinstance(index, StoreIndex)
    assert index.search(fit_dimension(Embedder(), dimension).encode_query(["text 5"]), 1)[0][0].document.id == "d5"
    if file_format == "parquet":
        assert index.search(embedder.encode_query(["text 5"]), 9, parse_filter("tokens < 3"))[0][2].rank == 3
    index.store.close()


def test_unfinished_damaged_and_foreign_shards_are_refused(tmp_path, encoded):
    out = encoded()
    with pytest.raises(InputError, match="another model"):
        build_store(str(tmp_path / "a"), out, Embedder("0" * 64))
    with pytest.raises(InputError, match="vectors of queries"):
        build_store(str(tmp_path / "a"), encoded(input_type="query"), Embedder())
    vectors = out / "vectors" / "000001.parquet"
    data = bytearray(vectors.read_bytes())
    data[100] ^= 1
    vectors.write_bytes(data)
    with pytest.raises(InputError, match="SHA-256"):
        build_store(str(tmp_path / "b"), out, Embedder())
    (out / "shards" / "000001.json").unlink()
    with pytest.raises(InputError, match="not finished"):
        build_store(str(tmp_path / "c"), out, Embedder())
    with pytest.raises(InputError, match=r"no plan\.json"):
        build_store(str(tmp_path / "d"), tmp_path, Embedder())


def test_an_old_index_folder_opens_by_its_location_and_takes_filters(tmp_path):
    from fake_embedder import functions

    SearchIndex.build(tmp_path / "index", functions(30), FakeEmbedder())
    _, index = open_for(FakeEmbedder(), str(tmp_path / "index"))
    assert isinstance(index, SearchIndex) and index.count == 30
    query = FakeEmbedder().encode_query(["q"])
    everything = [hit.document.line for hit in index.search(query, 30)[0]]
    some = [hit.document.line for hit in index.search(query, 30, parse_filter("line > 3 and line <= 9"))[0]]
    assert some == [line for line in everything if 3 < line <= 9]
    assert index.search(query, 3, parse_filter('path = "none"')) == [[]]
    with pytest.raises(InputError, match="no field 'year'"):
        index.search(query, 3, parse_filter("year = 3"))
    with pytest.raises(InputError, match="another model"):
        open_for(FakeEmbedder("0" * 64), str(tmp_path / "index"))
