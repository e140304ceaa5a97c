"""What every store promises: the same rankings, filters, content and refusals."""

import os
import signal
import sys
from pathlib import Path

import forked
import numpy as np
import pyarrow as pa
import pytest
from small_rows import DIMENSION, FIELDS, META, open_place, small_rows, unit, vectors

import gemma4vec
from gemma4vec.errors import InputError
from gemma4vec.serving.store.filters import parse_filter
from gemma4vec.serving.store.open_store import create_store, open_or_create, open_store
from gemma4vec.serving.store.recall_gate import build_and_check
from gemma4vec.serving.store.rows import vectors_of
from gemma4vec.serving.store.search_store import add_rows, search_store
from gemma4vec.serving.store.store_meta import StoreMeta

QUERIES = vectors(6, seed=5)
FILTERS = [
    'language = "de"',
    'language != "de"',
    'language in ("fr", "o\'r\\"")',
    "year >= 2010 and year < 2015",
    "year != 2003 and checked = true",
    "year in (2001, 2002)",
    "Weight > 4.5",
    "Weight <= 0 and Weight != -1.5",
    "Weight = 2.5",
    "Weight in (1, 2.5)",
    "checked != true",
    'language = "nowhere"',
]


def by_definition(rows: pa.RecordBatch, query: np.ndarray, k: int, mask: np.ndarray | None = None) -> list[str]:
    """Ids by descending score in fp64 (as fp32), equal scores by ascending id."""
    scores = (vectors_of(rows).astype(np.float64) @ query.astype(np.float64)).astype(np.float32)
    kept = range(rows.num_rows) if mask is None else np.flatnonzero(mask)
    ids = rows.column("id").to_pylist()
    return [ids[i] for i in sorted(kept, key=lambda i: (-scores[i], ids[i]))][:k]


def test_exact_rankings_filters_and_rows_are_those_of_the_definition(make_store):
    rows = small_rows()
    store = make_store(META)
    add_rows(store, rows.slice(0, 200))
    add_rows(store, rows.slice(150))  # 50 rows twice
    assert store.count() == rows.num_rows
    gate = build_and_check(store, held_out=20)
    assert store.meta.index == "exact" and gate is not None and gate.recall == 1.0 and gate.source == "documents"
    # The sixth query is the vector of 30 rows: the ten lowest ids are found.
    queries = np.concatenate([QUERIES[:5], vectors_of(rows)[40:41]])
    found = search_store(store, queries, 10)
    assert [[one.id for one in row] for row in found] == [by_definition(rows, query, 10) for query in queries]
    assert found[5][0].score == pytest.approx(1.0, abs=1e-6) and len({one.score for one in found[5]}) == 1
    table = pa.Table.from_batches([rows])
    for text in FILTERS:
        where = parse_filter(text)
        mask = where.mask(table).to_numpy()
        got = [[one.id for one in row] for row in search_store(store, queries[:2], 10, where)]
        assert got == [by_definition(rows, query, 10, mask) for query in queries[:2]], text
    plain = {row["id"]: row for row in rows.drop_columns("vector").to_pylist()}
    for row in store.rows(["d0007", "d0000"]):
        expected = plain[row.id]
        assert (row.title, row.text, row.content) == (expected["title"], expected["text"], expected["content"])
        assert dict(row.fields) == {name: expected[name] for name in FIELDS}
    assert store.contents(["d0007", "none"]) == {"d0007": plain["d0007"]["content"]}


def test_a_row_that_is_added_again_replaces_the_old_one(make_store):
    rows = small_rows(40)
    store = make_store(META)
    add_rows(store, rows)
    build_and_check(store, held_out=5)
    moved = rows.slice(3, 1).set_column(1, "vector", rows.column("vector").slice(9, 1))
    moved = moved.set_column(3, "text", pa.array(["new"]))
    add_rows(store, moved)
    add_rows(store, rows.slice(0, 3))
    build_and_check(store, held_out=5)
    assert store.count() == 40
    name = moved.column("id")[0].as_py()
    found = search_store(store, vectors_of(moved), 2)[0]
    assert name in {one.id for one in found} and store.rows([name])[0].text == "new"


def test_bad_rows_and_queries_are_one_line_and_change_nothing(make_store):
    store = make_store(META)
    rows = small_rows(8)
    broken = vectors_of(rows).copy()
    broken[3, 0] = np.nan
    long = 2 * vectors_of(rows)
    for bad in (broken, long):
        with pytest.raises(InputError, match=r"not finite or not of unit length") as failure:
            add_rows(store, small_batch(rows, bad))
        assert "\n" not in str(failure.value)
    with pytest.raises(InputError, match="dimension 64"):
        add_rows(store, small_batch(rows, vectors(8, dimension=32)))
    assert store.count() == 0
    add_rows(store, rows)
    build_and_check(store, held_out=2)
    with pytest.raises(InputError, match="not finite"):
        search_store(store, np.full((1, DIMENSION), np.nan, np.float32), 3)
    with pytest.raises(InputError, match="dimension 64"):
        search_store(store, vectors(1, dimension=32), 3)
    with pytest.raises(InputError, match="at least 1"):
        search_store(store, QUERIES, 0)
    with pytest.raises(InputError, match="no field 'lang'"):
        search_store(store, QUERIES, 1, parse_filter('lang = "de"'))
    assert len(search_store(store, QUERIES[:1], 99)[0]) == 8


def small_batch(rows: pa.RecordBatch, new: np.ndarray) -> pa.RecordBatch:
    flat = pa.array(new.reshape(-1).astype(np.float32))
    return rows.set_column(1, "vector", pa.FixedSizeListArray.from_arrays(flat, new.shape[1]))


def test_an_index_reaches_its_recall_and_says_it(make_store, kind):
    rows = small_rows(1500)
    store = make_store(META)
    add_rows(store, rows)
    index = {"files": "binary", "lance": "ivf_flat", "postgres": "hnsw", "qdrant": "hnsw"}[kind]
    gate = build_and_check(store, index, vectors(80, seed=8))
    assert gate is not None and gate.passed and gate.source == "queries" and (gate.queries, gate.tuned_on) == (40, 40)
    assert store.meta.index == index and store.meta.gate == gate and store.meta.parameters == gate.parameters
    fresh = vectors(50, seed=9)
    hits = [
        len({one.id for one in row} & set(by_definition(rows, query, 10)))
        for row, query in zip(search_store(store, fresh, 10), fresh, strict=True)
    ]
    assert np.mean(hits) / 10 >= 0.95
    mask = parse_filter("year = 2004").mask(pa.Table.from_batches([rows])).to_numpy()
    filtered = search_store(store, fresh[:5], 10, parse_filter("year = 2004"))
    share = [
        len({one.id for one in row} & set(by_definition(rows, query, 10, mask)))
        for row, query in zip(filtered, fresh[:5], strict=True)
    ]
    assert np.mean(share) / 10 >= 0.9
    exactly = search_store(store, fresh[:5], 10, exact=True)
    assert [[one.id for one in row] for row in exactly] == [by_definition(rows, query, 10) for query in fresh[:5]]


def test_a_store_is_opened_by_its_location_and_refuses_another_model(place, kind):
    if kind == "qdrant":
        pytest.skip("Qdrant's local mode stores pickles, so no location opens it")
    store = open_or_create(place, META)
    add_rows(store, small_rows(30))
    build_and_check(store, held_out=5)
    store.close()
    again = open_store(place, META.fingerprint)
    assert again.meta.fields == FIELDS and again.meta.gate is not None and again.count() == 30
    again.close()
    with pytest.raises(InputError, match="another model"):
        open_store(place, "0" * 64)
    with pytest.raises(InputError, match="another model"):
        open_or_create(place, StoreMeta("other", "0" * 64, DIMENSION, dict(FIELDS)))
    with pytest.raises(InputError, match="dimension 64"):
        open_or_create(place, StoreMeta("small", "f" * 64, 32, dict(FIELDS)))
    with pytest.raises(InputError, match="fields"):
        open_or_create(place, StoreMeta("small", "f" * 64, DIMENSION))
    with pytest.raises(InputError, match=r"exists|not empty"):
        create_store(place, META)
    last = open_store(place)
    last.drop()
    with pytest.raises(InputError, match="no vector store"):
        open_store(place)


KILLED = """
import os, signal, sys, threading, time
from small_rows import open_place, small_rows
from gemma4vec.serving.store.search_store import add_rows
store, rows = open_place(sys.argv[1]), small_rows()
add_rows(store, rows.slice(0, 60))
# From here on, a signal that Python cannot catch comes in the middle of some batch.
threading.Timer(float(sys.argv[2]), lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
while True:
    for start in range(60, 300, 20):
        add_rows(store, rows.slice(start, 20))
"""


def test_rows_added_again_after_a_kill_give_the_content_of_an_undisturbed_store(place):
    rows = small_rows()
    root = Path(gemma4vec.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root / 'src'}:{root / 'tests' / 'helpers'}"}
    words = [sys.executable, "-c", KILLED, place, "0.02"]
    killed = forked.run(words, env=environment, check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    store = open_place(place)
    assert store.count() >= 60
    for start in range(0, 300, 100):
        add_rows(store, rows.slice(start, 100))
    build_and_check(store, held_out=5)
    assert store.count() == 300
    content = {
        identity: vector.tobytes()
        for batch in store.scan()
        for identity, vector in zip(batch.column("id").to_pylist(), vectors_of(batch), strict=True)
    }
    assert content == dict(zip(rows.column("id").to_pylist(), [v.tobytes() for v in vectors_of(rows)], strict=True))
    ids = sorted(content)
    plain = {row["id"]: row for row in rows.drop_columns("vector").to_pylist()}
    assert [(row.text, row.fields["year"]) for row in store.rows(ids)] == [
        (plain[one]["text"], plain[one]["year"]) for one in ids
    ]
    store.drop()


def test_an_empty_store_finds_nothing(make_store):
    store = make_store(META)
    assert build_and_check(store) is None
    assert search_store(store, unit(np.ones((2, DIMENSION))), 3) == [[], []]
