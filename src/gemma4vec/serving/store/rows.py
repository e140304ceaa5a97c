"""The rows of a store as Arrow batches: id, vector, title, text, a hash of the content, and scalar fields.

Every store gets checked batches, so that no store holds what another cannot: unit vectors, unique ids, text without
NUL characters (PostgreSQL), whole numbers within 2^53 (Qdrant compares doubles) and finite numbers.

Shapes: R rows of a batch, D dimension.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gemma4vec.errors import InputError
from gemma4vec.retrieval.unit_rows import are_unit_lengths
from gemma4vec.serving.store.filters import LARGEST_INT, FieldType, Value

ARROW_TYPES: dict[FieldType, pa.DataType] = {
    "text": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
}
PAYLOAD = ("title", "text", "content")
RESERVED = ("id", "vector", *PAYLOAD)
LONGEST_ID = 2_000  # bytes; an index entry of PostgreSQL holds about 2,700
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,40}")

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Row:
    """One stored row without its vector. `content` is a hash of title and text, or empty."""

    id: str
    title: str | None = None
    text: str = ""
    content: str = ""
    fields: Mapping[str, Value | None] = field(default_factory=dict)


def check_fields(fields: Mapping[str, FieldType]) -> None:
    """Check the names and types of scalar fields.

    Raises:
        InputError: a name that a store cannot have as a column.
    """
    seen: dict[str, str] = {}
    for name, kind in fields.items():
        if not _FIELD.fullmatch(name) or name.casefold() in RESERVED:
            raise InputError(
                f"field {name[:60]!r}: use a name of letters, digits and _, other than {', '.join(RESERVED)}"
            )
        if kind not in ARROW_TYPES:
            raise InputError(f"field {name}: type {kind!r}; use one of {', '.join(ARROW_TYPES)}")
        if name.casefold() in seen:
            raise InputError(f"fields {seen[name.casefold()]} and {name} differ in case alone; rename one")
        seen[name.casefold()] = name


def row_schema(dimension: int, fields: Mapping[str, FieldType]) -> pa.Schema:
    """Return the Arrow schema of a store's rows."""
    columns = [
        pa.field("id", pa.string(), nullable=False),
        pa.field("vector", pa.list_(pa.float32(), dimension), nullable=False),
        pa.field("title", pa.string()),
        pa.field("text", pa.string()),
        pa.field("content", pa.string()),
    ]
    return pa.schema([*columns, *(pa.field(name, ARROW_TYPES[kind]) for name, kind in fields.items())])


def make_rows(rows: Sequence[Row], vectors_RD: Vectors, fields: Mapping[str, FieldType]) -> pa.RecordBatch:
    """Make an Arrow batch of rows and their vectors [R, D]; NUL and lone surrogates in texts become U+FFFD."""
    schema = row_schema(vectors_RD.shape[1], fields)
    columns: list[pa.Array] = [
        pa.array([row.id for row in rows], pa.string()),
        as_vector_column(vectors_RD),
        pa.array([None if row.title is None else storable(row.title) for row in rows], pa.string()),
        pa.array([storable(row.text) for row in rows], pa.string()),
        pa.array([row.content for row in rows], pa.string()),
    ]
    columns += [pa.array([row.fields.get(name) for row in rows], ARROW_TYPES[kind]) for name, kind in fields.items()]
    return pa.record_batch(columns, schema=schema)


def storable(text: str) -> str:
    """Replace what some stores cannot hold, NUL and lone surrogates, by U+FFFD."""
    return text.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def as_vector_column(vectors_RD: Vectors) -> pa.FixedSizeListArray:
    """Return vectors as an Arrow column without copying them."""
    flat = pa.array(np.ascontiguousarray(vectors_RD, dtype=np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, vectors_RD.shape[1])


def vectors_of(rows: pa.RecordBatch | pa.Table) -> Vectors:
    """Return the vectors of a batch, float32[R, D]."""
    column = rows.column("vector")
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
        if isinstance(column, pa.ChunkedArray):  # of no chunk
            return np.zeros((0, rows.schema.field("vector").type.list_size), np.float32)
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, dtype=np.float32).reshape(len(column), column.type.list_size)


def check_rows(rows: pa.RecordBatch, dimension: int, fields: Mapping[str, FieldType]) -> pa.RecordBatch:
    """Check a batch and return it with the columns and types of the store; of equal ids the last row remains.

    Args:
        rows: has `id` and `vector` (a list of D numbers, fp32 or fp16); `title`, `text`, `content` and fields may be
            missing. Other columns are dropped.
        dimension: D of the store.
        fields: scalar fields of the store.

    Raises:
        InputError: one line with the first bad row's id and what to do.
    """
    names = rows.schema.names
    if len(set(names)) != len(names) or not {"id", "vector"} <= set(names):
        raise InputError(f"rows have the columns {', '.join(names)[:200]}; they need one `id` and one `vector`")
    ids = _as_text(rows.column("id"), "id")
    if ids.null_count:
        raise InputError(f"row {ids.is_null().index(True).as_py() + 1:,} has no id; give every row one")
    vectors_RD = check_vectors(_raw_vectors(rows.column("vector")), dimension, ids)
    columns: dict[str, pa.Array] = {"id": ids, "vector": as_vector_column(vectors_RD)}
    for name in PAYLOAD:
        columns[name] = _as_text(rows.column(name), name) if name in names else pa.nulls(rows.num_rows, pa.string())
    for name, kind in fields.items():
        columns[name] = _as_field(rows, name, kind)
    _check_texts(columns, ids)
    schema = row_schema(dimension, fields)
    checked = pa.record_batch([columns[name] for name in schema.names], schema=schema)
    last = {identity: row for row, identity in enumerate(ids.to_pylist())}
    return checked if len(last) == rows.num_rows else checked.take(pa.array(sorted(last.values())))


def check_vectors(vectors_RD: Vectors, dimension: int, ids: Sequence[object] | pa.Array) -> Vectors:
    """Check that vectors [R, D] are finite, of unit length and of `dimension`; return them.

    Raises:
        InputError: some are not; the message has their number and the first id.
    """
    if vectors_RD.ndim != 2 or vectors_RD.shape[1] != dimension:
        raise InputError(
            f"vectors of shape {list(vectors_RD.shape)}, but the store's have dimension {dimension}; use its model"
        )
    with np.errstate(all="ignore"):
        lengths_R = np.sqrt(np.einsum("rd,rd->r", vectors_RD, vectors_RD, dtype=np.float64))
    bad = np.flatnonzero(~are_unit_lengths(lengths_R))
    if len(bad):
        first = int(bad[0])
        raise InputError(
            f"{len(bad)} of {len(vectors_RD)} vectors are not finite or not of unit length (first: "
            f"{str(ids[first])[:80]!r}, length {lengths_R[first]:.3g}); normalize them, or check the model with "
            "`gemma4vec doctor`"
        )
    return vectors_RD


def _raw_vectors(column: pa.Array) -> Vectors:
    kind = column.type
    if column.null_count:
        raise InputError(f"{column.null_count} rows have no vector; drop them first")
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        sizes = set(pc.list_value_length(column).to_pylist())
        if len(sizes) > 1:
            raise InputError(f"vectors have {len(sizes)} different lengths; embed all rows with one model")
        size = sizes.pop() if sizes else 0
    elif pa.types.is_fixed_size_list(kind):
        size = kind.list_size
    else:
        raise InputError(f"the column `vector` is {kind}; it must be a list of numbers")
    if not pa.types.is_floating(kind.value_type):
        raise InputError(f"the column `vector` holds {kind.value_type}; it must hold fp32 or fp16")
    flat = column.flatten()
    if flat.null_count:
        raise InputError(f"{flat.null_count} numbers of the vectors are missing; drop those rows first")
    return np.asarray(flat.to_numpy(zero_copy_only=False), dtype=np.float32).reshape(len(column), size or 0)


def _as_text(column: pa.Array, name: str) -> pa.Array:
    if pa.types.is_integer(column.type) and name == "id":
        return column.cast(pa.string())
    if pa.types.is_null(column.type) or pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return column.cast(pa.string())
    if pa.types.is_dictionary(column.type) and pa.types.is_string(column.type.value_type):
        return column.cast(pa.string())
    raise InputError(f"the column `{name}` is {column.type}; it must be text")


def _as_field(rows: pa.RecordBatch, name: str, kind: FieldType) -> pa.Array:
    if name not in rows.schema.names:
        return pa.nulls(rows.num_rows, ARROW_TYPES[kind])
    column = rows.column(name)
    if kind == "text":
        return _as_text(column, name)
    found = field_type(column.type)
    if found is not None and found != kind and not (found == "int" and kind == "float"):
        raise InputError(f"field {name}: the store has {kind}, the rows have {found}; convert one")
    try:
        values = column.cast(ARROW_TYPES[kind])
    except pa.ArrowInvalid as error:
        raise InputError(f"field {name}: {' '.join(str(error).split())[:120]}; convert it to {kind}") from error
    limits = pc.min_max(values) if kind in ("int", "float") else None
    if limits is not None and limits["min"].as_py() is not None:
        low, high = limits["min"].as_py(), limits["max"].as_py()
        whole = kind == "int" and max(-low, high) > LARGEST_INT
        broken = kind == "float" and (not math.isfinite(low) or not math.isfinite(high) or _has_nan(values))
        if whole or broken:
            raise InputError(f"field {name}: {'a number is outside of ±2^53' if whole else 'a number is not finite'}")
    elif kind == "float" and _has_nan(values):
        raise InputError(f"field {name}: a number is not finite")
    return values


def _has_nan(values: pa.Array) -> bool:
    return bool(pc.any(pc.is_nan(values)).as_py())


def field_type(kind: pa.DataType) -> FieldType | None:
    """Return the field type of an Arrow type, or None if filters have none for it."""
    if pa.types.is_boolean(kind):
        return "bool"
    if pa.types.is_integer(kind):
        return "int"
    if pa.types.is_floating(kind):
        return "float"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "text"
    return None


def _check_texts(columns: Mapping[str, pa.Array], ids: pa.Array) -> None:
    for name, column in columns.items():
        if not pa.types.is_string(column.type) or not len(column):
            continue
        found = pc.any(pc.match_substring(column, "\0")).as_py()
        if found:
            row = pc.index(pc.fill_null(pc.match_substring(column, "\0"), False), True).as_py()
            raise InputError(f"row {ids[row].as_py()[:80]!r}: `{name}` has a NUL character; remove it")
    longest = pc.max(pc.binary_length(ids)).as_py() if len(ids) else 0
    if longest is not None and longest > LONGEST_ID:
        raise InputError(f"an id has {longest:,} bytes; use ids of at most {LONGEST_ID:,}")
    if len(ids) and pc.any(pc.equal(ids, "")).as_py():
        raise InputError("a row has an empty id; give every row one")
