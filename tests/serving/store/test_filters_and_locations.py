"""Filters are parsed or refused in one line; locations name a store; unreachable databases and missing packages too."""

import builtins

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_rows import DIMENSION, FIELDS, META, vectors

from gemma4vec.errors import InputError, WorkError
from gemma4vec.serving.store.filters import Comparison, parse_filter
from gemma4vec.serving.store.open_store import create_store, open_store, parse_location
from gemma4vec.serving.store.postgres import show_location
from gemma4vec.serving.store.rows import check_rows, storable
from gemma4vec.serving.store.store_meta import StoreMeta


def test_a_filter_is_its_comparisons():
    assert parse_filter(' year>=2020 AND language = "d\\"e" and w in (1, -2.5) and ok != TRUE').comparisons == (
        Comparison("year", ">=", (2020,)),
        Comparison("language", "=", ('d"e',)),
        Comparison("w", "in", (1, -2.5)),
        Comparison("ok", "!=", (True,)),
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "year",
        "year =",
        "year = and",
        "year = 1 or a = 2",
        "year == 1",
        "year = 'x'",
        "year = 1;",
        "in (1)",
        "year in ()",
        "year in (1, 2",
        "year = 1 and",
        'language = "\\ud800"',
        "year = 1e999",
        "year = 99999999999999999",
        "a = b",
    ],
)
def test_what_is_no_filter_is_one_line(text):
    with pytest.raises(InputError, match="filter") as failure:
        parse_filter(text)
    assert "\n" not in str(failure.value) and len(str(failure.value)) < 250


@given(st.text(max_size=60))
def test_any_text_is_a_filter_or_an_input_error(text):
    try:
        parse_filter(text).check(FIELDS)
    except InputError:
        pass
    else:
        assert text.strip()


@pytest.mark.parametrize(
    "text",
    ['year = "x"', "language = 3", 'language < "de"', "checked > true", "checked = 1", "year = 1.5", "year = true"],
)
def test_types_must_fit(text):
    with pytest.raises(InputError, match="filter"):
        parse_filter(text).check(FIELDS)


def test_locations():
    assert parse_location("runs/index/store").kind == "files"
    assert parse_location("lance:a b/c#rows").address == "a b/c"
    assert parse_location("postgresql://me:secret@host:5433/db?x=1#rows").name == "rows"
    assert parse_location("qdrant:http://host:6333#rows").address == "http://host:6333"
    for bad in ("lance:a", "postgresql://host/db", "postgresql://host/db#Drop;", "qdrant:/folder#rows", "s3://x#rows"):
        with pytest.raises(InputError):
            parse_location(bad)
    assert "secret" not in show_location("postgresql://me:secret@host:5433/db?password=secret", "rows")


@pytest.mark.parametrize("place", ["postgresql://nobody:secret@127.0.0.1:1/db#rows", "qdrant:http://127.0.0.1:1#rows"])
def test_an_unreachable_database_is_one_line_without_its_password(place):
    with pytest.raises(WorkError, match="reached") as failure:
        open_store(place)
    assert "\n" not in str(failure.value) and "secret" not in str(failure.value)


@pytest.mark.parametrize("place", ["lance:{}#rows", "postgresql://h/d#rows", "qdrant:http://h#rows"])
def test_a_missing_package_names_the_extra(place, tmp_path, monkeypatch):
    original = builtins.__import__

    def absent(name, *rest, **options):
        if name.split(".")[0] in ("lancedb", "psycopg", "pgvector", "qdrant_client"):
            raise ImportError(name)
        return original(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(InputError, match=r'pip install "gemma4vec\[store\]"'):
        create_store(place.format(tmp_path / "x"), META)


def batch(**changed):
    columns = {"id": pa.array(["a", "b"]), "vector": pa.array(vectors(2).tolist(), pa.list_(pa.float32(), DIMENSION))}
    return pa.record_batch({**columns, **changed})


def test_rows_of_other_arrow_types_become_the_stores():
    half = pa.FixedSizeListArray.from_arrays(pa.array(vectors(2).astype(np.float16).reshape(-1)), DIMENSION)
    made = check_rows(
        batch(id=pa.array([7, 8]), vector=half, year=pa.array([1, None], pa.int32()), Weight=pa.array([1, 2])),
        DIMENSION,
        FIELDS,
    )
    assert made.column("id").to_pylist() == ["7", "8"] and made.column("year").to_pylist() == [1, None]
    assert made.column("Weight").type == pa.float64() and made.schema.field("vector").type.value_type == pa.float32()
    twice = check_rows(batch(id=pa.array(["a", "a"]), year=pa.array([1, 2])), DIMENSION, FIELDS)
    assert twice.column("year").to_pylist() == [2]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"id": pa.array(["a", None])}, "no id"),
        ({"id": pa.array(["a", ""])}, "empty id"),
        ({"id": pa.array(["a", "b\0"])}, "NUL"),
        ({"id": pa.array(["a", "x" * 2001])}, "2,001 bytes"),
        ({"id": pa.array([1.5, 2.5])}, "must be text"),
        ({"year": pa.array(["x", "y"])}, "int"),
        ({"year": pa.array([1, 2**60])}, "2\\^53"),
        ({"Weight": pa.array([1.0, float("nan")])}, "not finite"),
        ({"vector": pa.array([[1.0], [1.0, 2.0]])}, "different lengths"),
        ({"vector": pa.array(["x", "y"])}, "list of numbers"),
        ({"vector": pa.array([[1.0], None])}, "no vector"),
    ],
)
def test_bad_rows_are_refused_with_the_reason(changed, message):
    with pytest.raises(InputError, match=message):
        check_rows(batch(**changed), DIMENSION, FIELDS)


@pytest.mark.parametrize("name", ["id", "Vector", "a b", "x" * 50, 'a"; DROP', ""])
def test_fields_have_plain_names(name):
    with pytest.raises(InputError, match="field"):
        StoreMeta("m", "f", 3, {name: "int"})


def test_fields_that_differ_in_case_are_refused():
    with pytest.raises(InputError, match="case"):
        StoreMeta("m", "f", 3, {"year": "int", "Year": "int"})


@given(st.text(st.characters()))
def test_storable_text_has_neither_nul_nor_surrogates(text):
    storable(text).encode()
    assert "\0" not in storable(text)
    assert storable(text) == text or "\0" in text or any("\ud800" <= one <= "\udfff" for one in text)
