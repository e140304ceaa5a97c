"""Product quantization by faiss: recall, filters, files, and what happens where faiss is not installed."""

import json
import logging
import sys

import numpy as np
import pyarrow as pa
import pytest
from small_rows import META, small_rows, vectors

from gemma4vec.errors import InputError
from gemma4vec.files import crc32_file
from gemma4vec.retrieval.exact import search
from gemma4vec.serving.store.codes import make_codes, open_codes
from gemma4vec.serving.store.filters import parse_filter
from gemma4vec.serving.store.own_files import OwnFiles
from gemma4vec.serving.store.product_codes import has_faiss, product_width
from gemma4vec.serving.store.recall_gate import build_and_check
from gemma4vec.serving.store.rows import Row, as_vector_column, make_rows
from gemma4vec.serving.store.search_store import add_rows, found_ids, search_store
from gemma4vec.serving.store.store_meta import StoreMeta


@pytest.fixture
def without_faiss(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)  # an import of None is an ImportError


@pytest.fixture
def built(tmp_path):
    """A folder with a store of 1,500 rows and an index "pq"; it is closed."""
    store = OwnFiles.create(tmp_path / "store", META)
    add_rows(store, small_rows(1500))
    gate = build_and_check(store, "pq", vectors(80, seed=8))
    assert gate is not None and gate.passed and store.meta.index == "pq"
    store.close()
    return tmp_path / "store"


@pytest.mark.parametrize("dimension", [16, 100, 640])
def test_codes_hold_the_exact_nearest_among_few_candidates(dimension):
    rows, queries = vectors(3000, dimension=dimension), vectors(40, seed=2, dimension=dimension)
    codes = open_codes("pq", make_codes("pq", rows), 3000, dimension)
    exact = search(queries, rows, 10).indices
    found = [codes.nearest(query, 30, None) for query in queries]
    assert all(len(near) == len(set(near.tolist())) == 30 for near in found)
    shares = [len(set(near.tolist()) & set(best.tolist())) / 10 for near, best in zip(found, exact, strict=True)]
    assert np.mean(shares) >= 0.98
    assert sorted(codes.nearest(queries[0], 5000, None).tolist()) == list(range(3000))


def test_a_mask_leaves_matching_rows_alone_and_may_leave_few():
    rows, query = vectors(3000), vectors(1, seed=2)[0]
    codes = open_codes("pq", make_codes("pq", rows), 3000, 64)
    mask = np.zeros(3000, bool)
    mask[[3, 9, 2000]] = True
    assert sorted(codes.nearest(query, 10, mask).tolist()) == [3, 9, 2000]
    mask[:] = np.arange(3000) % 3 == 1
    matching = np.flatnonzero(mask)
    near, best = codes.nearest(query, 30, mask), matching[search(query[None], rows[mask], 10).indices[0]]
    assert mask[near].all() and len(set(near.tolist()) & set(best.tolist())) >= 9
    assert len(near) == 30 and len(codes.nearest(query, 60, np.zeros(3000, bool))) == 0


@pytest.mark.parametrize("text", ['language = "de"', "year = 2004", "checked = true and year >= 2010", "year = 1999"])
def test_filtered_search_is_exact_search_of_the_matching_rows(built, text):
    store = OwnFiles.open(built)
    where, queries = parse_filter(text), vectors(20, seed=9)
    found, exact = (found_ids(search_store(store, queries, 10, where, exact=one)) for one in (False, True))
    assert [len(row) for row in found] == [len(row) for row in exact]
    shares = [len(set(ours) & set(best)) / 10 for ours, best in zip(found, exact, strict=True) if best]
    assert not shares or np.mean(shares) >= 0.97
    store.close()


def test_near_ties_are_ordered_by_id_as_exact_search_orders_them(built):
    store = OwnFiles.open(built)
    same = search_store(store, np.repeat(vectors(1500)[40:41], 12, axis=0), 10)  # 30 rows have this vector
    exact = search_store(store, vectors(1500)[40:41], 10, exact=True)[0]
    assert all(row == exact for row in same) and len({one.score for one in exact}) == 1
    store.close()


def test_rows_that_are_added_or_replaced_are_found_after_the_next_build(built):
    store = OwnFiles.open(built)
    new = vectors(3, seed=77)
    old = store.rows(["d0007"])[0]
    add_rows(store, pa.record_batch({"id": ["new1", "new2", "d0007"], "vector": as_vector_column(new)}))
    build_and_check(store, "pq", vectors(80, seed=8))
    found = search_store(store, new, 1)
    assert [row[0].id for row in found] == ["new1", "new2", "d0007"] and all(row[0].score > 0.9999 for row in found)
    assert store.count() == 1502 and old.text and store.rows(["d0007"])[0].text == ""
    store.close()


@pytest.mark.parametrize("text", [None, "year >= 2003"])
def test_equal_vectors_are_all_found(tmp_path, text):
    rows = small_rows(200)
    store = OwnFiles.create(tmp_path / "store", META)
    same = np.repeat(vectors(1, seed=6), 200, axis=0)
    add_rows(store, rows.set_column(1, "vector", as_vector_column(same)))
    build_and_check(store, "pq", vectors(40, seed=8))
    where = None if text is None else parse_filter(text)
    found, exact = (search_store(store, vectors(2, seed=9), 10, where, exact=one) for one in (False, True))
    assert found == exact and len(found[0]) == 10
    store.close()


def test_the_same_rows_give_the_same_files(tmp_path):
    sums = []
    for name in ("a", "b"):
        store = OwnFiles.create(tmp_path / name, META)
        add_rows(store, small_rows(400))
        build_and_check(store, "pq", held_out=5)
        store.close()
        sums.append(json.loads((tmp_path / name / "store.json").read_text())["files"])
    assert sums[0] == sums[1] and {"axes.npy", "centroids.npy", "codes.npy", "fine.npy", "scales.npy"} <= set(sums[0])


@pytest.mark.parametrize("count", [1, 5, 17])
def test_few_rows_are_indexed_without_a_word(tmp_path, count, capfd):
    store = OwnFiles.create(tmp_path / "store", StoreMeta("small", "f" * 64, 64))
    add_rows(store, make_rows([Row(f"d{place}") for place in range(count)], vectors(count), {}))
    build_and_check(store, "pq", held_out=3)
    assert len(search_store(store, vectors(1), 5)[0]) == min(count, 5)
    store.close()
    assert "WARNING" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("name", ["axes.npy", "centroids.npy", "codes.npy", "fine.npy", "scales.npy"])
def test_a_flipped_bit_is_damage_before_faiss_sees_it(built, name, monkeypatch):
    path = built / "data-1" / name
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    monkeypatch.setattr("gemma4vec.serving.store.codes.ProductCodes", None)
    with pytest.raises(InputError, match=rf"{name} is damaged \(its checksum differs\)"):
        OwnFiles.open(built)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("codes", lambda array: array[:-1]),
        ("codes", lambda array: array.astype(np.int16)),
        ("centroids", lambda array: array[:, :8]),
        ("centroids", lambda array: array * np.float32("nan")),
        ("axes", lambda array: array[:, :-4]),
        ("fine", lambda array: array[:, ::-1].astype(np.uint8)),
        ("scales", lambda array: array * np.float32("inf")),
    ],
)
def test_arrays_of_another_form_are_damage_whatever_their_checksum(built, name, change):
    path = built / "data-1" / f"{name}.npy"
    np.save(path, change(np.load(path)))
    description = json.loads((built / "store.json").read_text())
    description["files"][path.name] = crc32_file(path)
    (built / "store.json").write_text(json.dumps(description))
    with pytest.raises(InputError, match="is damaged") as failure:
        OwnFiles.open(built)
    assert "\n" not in str(failure.value)


def test_without_faiss_a_store_is_searched_exactly_with_one_warning(built, without_faiss, caplog):
    store = OwnFiles.open(built)
    queries = vectors(6, seed=5)
    with caplog.at_level(logging.WARNING, "gemma4vec"):
        found = [search_store(store, queries, 10), search_store(store, queries, 10)]
    assert found[0] == found[1] == search_store(store, queries, 10, exact=True)
    assert len(caplog.records) == 1
    assert 'pip install "gemma4vec[faiss]"' in caplog.text and caplog.records[0].getMessage().count("\n") == 0
    store.close()


def test_without_faiss_no_such_index_is_built(tmp_path, without_faiss):
    store = OwnFiles.create(tmp_path / "store", META)
    add_rows(store, small_rows(50))
    with pytest.raises(InputError, match=r'needs faiss, which is not installed; pip install "gemma4vec\[faiss\]"'):
        build_and_check(store, "pq")
    assert store.count() == 50 and store.preferred() == ("exact",)


def test_auto_takes_it_where_faiss_is(tmp_path, monkeypatch):
    monkeypatch.setattr("gemma4vec.serving.store.own_files.EXACT_BELOW", 100)
    store = OwnFiles.create(tmp_path / "store", META)
    add_rows(store, small_rows(300))
    assert has_faiss() and store.preferred()[0] == "pq"
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert not has_faiss() and store.preferred()[0] == "pca_binary"


@pytest.mark.parametrize(("dimension", "width"), [(16, 16), (63, 60), (384, 128), (640, 128), (768, 152), (4096, 256)])
def test_the_width_is_a_multiple_of_four(dimension, width):
    assert product_width(dimension) == width
