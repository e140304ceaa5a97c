"""The files of one shard on disk: vectors, rejected rows, and the note that is written last and makes it complete.

The bytes depend on the plan and the shard's number alone. Shapes: N encoded rows, D dimensions.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gemma4vec.errors import InputError
from gemma4vec.files import NPY_ERRORS, atomic_write, sha256_file, write_json
from gemma4vec.reading.json_values import load_own_json, loads_json
from gemma4vec.serving.encode.input_rows import BadRow
from gemma4vec.serving.encode.plan import Plan

if TYPE_CHECKING:
    import pyarrow

NOTES, VECTORS, IDS, REJECTED = "shards", "vectors", "ids", "rejected"
DTYPES = {"f32": "<f4", "f16": "<f2"}
FORMATS = ("parquet", "npy", "lance")


@dataclass(frozen=True)
class ShardRows:
    """What one shard holds.

    Attributes:
        ids: N ids.
        vectors_ND: N unit vectors, f32 or f16.
        tokens_N: int32, number of tokens that the model read.
        truncated_N: bool, whether the text was longer than the model's limit.
        rejected: the rows that were not encoded.
    """

    ids: Sequence[str]
    vectors_ND: NDArray[Any]
    tokens_N: NDArray[np.int32]
    truncated_N: NDArray[np.bool_]
    rejected: Sequence[BadRow]


@dataclass(frozen=True)
class ShardNote:
    """A finished shard: numbers of rows, and SHA-256 and bytes of each file by its path below the folder."""

    shard: int
    rows: int
    encoded: int
    rejected: int
    tokens: int
    truncated: int
    files: dict[str, tuple[str, int]]


def shard_name(shard: int) -> str:
    """The name of a shard's files, without suffix."""
    return f"{shard:06d}"


def note_path(out: Path, shard: int) -> Path:
    """The note of a shard."""
    return out / NOTES / f"{shard_name(shard)}.json"


def is_done(out: Path, shard: int) -> bool:
    """Whether a shard is complete."""
    return note_path(out, shard).is_file()


def write_shard(out: Path, plan: Plan, shard: int, rows: ShardRows) -> ShardNote:
    """Write a shard, each file whole and flushed, the note last.

    Raises:
        DiskError: the disk is full or the folder cannot be written.
    """
    files: dict[str, tuple[str, int]] = {}
    for name, content in _contents(plan, shard_name(shard), rows):
        with atomic_write(out / name, "wb") as stream:
            stream.write(content)
        files[name] = hashlib.sha256(content).hexdigest(), len(content)
    note = ShardNote(
        shard,
        len(rows.ids) + len(rows.rejected),
        len(rows.ids),
        len(rows.rejected),
        int(rows.tokens_N.sum()),
        int(rows.truncated_N.sum()),
        files,
    )
    write_json(note_path(out, shard), vars(note))
    return note


def _contents(plan: Plan, name: str, rows: ShardRows) -> list[tuple[str, bytes]]:
    made = []
    if plan.file_format == "npy":
        stream = io.BytesIO()
        np.save(stream, rows.vectors_ND, allow_pickle=False)
        values = zip(rows.ids, rows.tokens_N.tolist(), rows.truncated_N.tolist(), strict=True)
        lines = ({"id": key, "tokens": tokens, "truncated": cut} for key, tokens, cut in values)
        made += [(f"{VECTORS}/{name}.npy", stream.getvalue()), (f"{IDS}/{name}.jsonl", _jsonl(lines))]
    else:
        made.append((f"{VECTORS}/{name}.parquet", _parquet(arrow_table(plan, rows))))
    if rows.rejected:
        made.append((f"{REJECTED}/{name}.jsonl", _jsonl(row.as_json() for row in rows.rejected)))
    return made


def arrow_schema(plan: Plan) -> "pyarrow.Schema":
    """The columns of a Parquet file and of a Lance table, with the model in the metadata."""
    import pyarrow

    number = pyarrow.float32() if plan.dtype == "f32" else pyarrow.float16()
    model, encoding = plan.identity["model"], plan.identity["encoding"]
    about = {"gemma4vec.model": model["name"], "gemma4vec.fingerprint": model["fingerprint"]}
    about |= {"gemma4vec.input_type": encoding["input_type"], "gemma4vec.prompt": encoding["prompt"]}
    return pyarrow.schema(
        [
            pyarrow.field("id", pyarrow.string(), nullable=False),
            pyarrow.field("vector", pyarrow.list_(pyarrow.field("item", number, nullable=False), plan.dimension)),
            pyarrow.field("tokens", pyarrow.int32(), nullable=False),
            pyarrow.field("truncated", pyarrow.bool_(), nullable=False),
        ],
        metadata=about,
    )


def arrow_table(plan: Plan, rows: ShardRows) -> "pyarrow.Table":
    """A shard as a table."""
    import pyarrow

    schema = arrow_schema(plan)
    vectors = pyarrow.FixedSizeListArray.from_arrays(
        pyarrow.array(rows.vectors_ND.reshape(-1)), type=schema.field("vector").type
    )
    columns = [pyarrow.array(rows.ids, pyarrow.string()), vectors, rows.tokens_N, rows.truncated_N]
    return pyarrow.table(columns, schema=schema)


def _parquet(table: "pyarrow.Table") -> bytes:
    import pyarrow.parquet

    stream = io.BytesIO()
    # Vectors do not shrink, and ids are all different: neither compression nor a dictionary pays.
    pyarrow.parquet.write_table(table, stream, compression="none", use_dictionary=False, write_statistics=False)
    return stream.getvalue()


def _jsonl(lines: Iterable[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode("utf-8", "replace")


def read_note(out: Path, shard: int) -> ShardNote:
    """The note of a finished shard.

    Raises:
        InputError: it is missing or damaged.
    """
    path = note_path(out, shard)
    try:
        read = load_own_json(path)
        files = {str(name): (str(found[0]), int(found[1])) for name, found in read.pop("files").items()}
        return ShardNote(**{name: int(value) for name, value in read.items()}, files=files)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise InputError(f"{path} is damaged ({error})") from error


def find_damage(out: Path, plan: Plan, shard: int) -> str | None:
    """What is wrong with a finished shard: its note, or the sums of its files; None: nothing."""
    try:
        note = read_note(out, shard)
    except InputError as error:
        return str(error)
    if note.shard != shard or note.rows != plan.rows_of(shard) or note.rows != note.encoded + note.rejected:
        return f"{note_path(out, shard)} does not belong to this plan"
    for name, (digest, size) in note.files.items():
        path = out / name
        try:
            if path.stat().st_size != size:
                return f"{path} has {path.stat().st_size:,} bytes, not {size:,}"
            if sha256_file(path) != digest:
                return f"{path} has another SHA-256 than when it was written"
        except OSError as error:
            return f"{path} cannot be read ({error.strerror or error})"
    return None


def read_shard(out: Path, plan: Plan, shard: int) -> tuple[list[str], NDArray[Any]]:
    """Ids and vectors [N, D] of a shard.

    Raises:
        InputError: a file is damaged.
    """
    import pyarrow
    import pyarrow.parquet

    name = shard_name(shard)
    try:
        if plan.file_format == "npy":
            vectors_ND = np.load(out / VECTORS / f"{name}.npy", allow_pickle=False)
            text = (out / IDS / f"{name}.jsonl").read_text(encoding="utf-8")
            return [str(loads_json(line, surrogates=True)["id"]) for line in text.split("\n") if line], vectors_ND
        table = pyarrow.parquet.read_table(out.absolute() / VECTORS / f"{name}.parquet").combine_chunks()
        return table["id"].to_pylist(), vectors_of(table, plan)
    except (OSError, pyarrow.ArrowException, KeyError, *NPY_ERRORS) as error:
        raise InputError(f"shard {shard} of {out} cannot be read ({' '.join(str(error).split())[:200]})") from error


def vectors_of(table: "pyarrow.Table", plan: Plan) -> NDArray[Any]:
    """The column `vector` as [N, D]."""
    chunks = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in table["vector"].chunks]
    flat = np.concatenate(chunks) if chunks else np.zeros(0, DTYPES[plan.dtype])
    return flat.reshape(-1, plan.dimension)
