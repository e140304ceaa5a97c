"""Precomputed vectors of texts from a file: JSON lines, Parquet, or .npy with the texts next to it.

Shapes: N vectors, E dimensions.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemma4vec.data.rows.jsonl import raw_lines
from gemma4vec.data.rows.rows import clean_text, clean_title
from gemma4vec.errors import InputError
from gemma4vec.reading.json_values import JsonError, loads_json

# A document's title ("" where it has none) and its text.
Key = tuple[str, str]
BLOCK = 4096
NUMBERS = (int, float, np.floating)


def read_vectors(path: Path, key: str) -> tuple[dict[Key, int], NDArray[np.float32]]:
    """(row of each text's vector, vectors `[N, E]`); those of a .npy file stay on disk, memory-mapped.

    - JSON lines (.jsonl, .gz, .zst): `{"text", "vector", "title"?}`.
    - .parquet: columns `text`, `vector` (a list of numbers) and, if there is one, `title`.
    - .npy: an array `[N, E]`; its texts are in a .jsonl of the same name next to it, line n the text of vector n: a
      string, or `{"text", "title"?}`.

    Args:
        path: the file.
        key: the recipe's key, for messages.

    Raises:
        InputError: the file cannot be read; a line or row has no text or vector; vectors have several lengths or a
            value that is no finite number; texts and vectors differ in number.
    """
    if path.suffix == ".npy":
        places, vectors = _npy(path, key)
    else:
        places = {}
        found: list[NDArray[np.float32]] = []
        for where, text, values in _parquet(path, key) if path.suffix == ".parquet" else _jsonl(path, key):
            vector = _vector(values, where)
            if found and len(vector) != len(found[0]):
                raise InputError(f"{where}: a vector of {len(vector)}, the others have {len(found[0])} values")
            places[text] = len(found)
            found.append(vector)
        if not found:
            raise InputError(f"{key}: {path} has no vector")
        vectors = np.stack(found)
    for start in range(0, len(vectors), BLOCK):
        bad = np.flatnonzero(~np.isfinite(vectors[start : start + BLOCK]).all(axis=1))
        if len(bad):
            raise InputError(f"{key}: {path}: vector {start + bad[0] + 1} has a value that is no finite number")
    return places, vectors


def vector_length(path: Path, key: str) -> int:
    """E of the first vector of a file; the others are not read.

    Raises:
        InputError: as `read_vectors`, for what is read.
    """
    if path.suffix == ".npy":
        return int(_array(path, key).shape[1])
    first = next(_parquet(path, key) if path.suffix == ".parquet" else _jsonl(path, key), None)
    if first is None:
        raise InputError(f"{key}: {path} has no vector")
    where, _, values = first
    return len(_vector(values, where))


def _vector(values: Any, where: str) -> NDArray[np.float32]:
    if not isinstance(values, list) or any(type(one) is bool or not isinstance(one, NUMBERS) for one in values):
        raise InputError(f"{where}: a vector is a list of numbers")
    try:
        with np.errstate(over="ignore"):  # beyond 32 bits: infinite, which the caller refuses
            vector = np.array([float(value) for value in values], dtype=np.float32)
    except OverflowError as error:
        raise InputError(f"{where}: a vector is a list of numbers ({error})") from error
    if not len(vector):
        raise InputError(f"{where}: the vector is empty")
    return vector


def _text(value: Any, where: str, needed: str) -> Key:
    """The key of a text, cleaned as the texts of rows are, so that both are equal."""
    if isinstance(value, str):
        return "", clean_text(value, Counter())
    text, title = (value.get("text"), value.get("title")) if isinstance(value, dict) else (None, None)
    if not isinstance(text, str) or not isinstance(title, str | None):
        raise InputError(f"{where}: {needed} is needed")
    return clean_title(title) or "", clean_text(text, Counter())


def _jsonl(path: Path, key: str) -> Iterator[tuple[str, Key, Any]]:
    for number, raw in raw_lines(path):
        where = f"{key}: {path} line {number}"
        line = _json(raw, where)
        text = _text(line if isinstance(line, dict) else None, where, '{"text", "vector"}')
        if "vector" not in line:
            raise InputError(f'{where}: {{"text", "vector"}} is needed')
        yield where, text, line["vector"]


def _json(raw: bytes, where: str) -> Any:
    try:
        return loads_json(raw, nonfinite=True, surrogates=True)
    except JsonError as fault:
        raise InputError(f"{where}: {fault.reason}") from None


def _parquet(path: Path, key: str) -> Iterator[tuple[str, Key, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path.absolute())
        names = file.schema_arrow.names
        missing = next((name for name in ("text", "vector") if name not in names), None)
        if missing is not None:
            raise InputError(f"{key}: {path} has no column {missing!r}; it has {', '.join(names)}")
        twice = next((name for name in ("text", "vector", "title") if names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"{key}: {path}: two columns are called {twice!r}; give each its own name")
        number = 0
        for block in file.iter_batches(BLOCK, columns=[n for n in ("text", "vector", "title") if n in names]):
            for row in block.to_pylist():
                number += 1
                where = f"{key}: {path} row {number}"
                yield where, _text(row, where, "a text"), row["vector"]
    except FileNotFoundError as error:
        raise InputError(f"{key}: {path}: no such file; check the path") from error
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        line = " ".join(str(error).split())[:200]
        raise InputError(f"{key}: {path}: cannot be read as Parquet ({line}); copy or make the file again") from error


def _array(path: Path, key: str) -> NDArray[np.float32]:
    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(vectors, np.ndarray):
            raise ValueError("an archive of several arrays")
    except FileNotFoundError as error:
        raise InputError(f"{key}: {path}: no such file; check the path") from error
    except Exception as error:  # numpy reads the header as Python and raises what the parser raises
        line = " ".join(str(error).split())[:200]
        raise InputError(f"{key}: {path}: cannot be read as .npy ({line}); copy or make the file again") from error
    if vectors.ndim != 2 or not vectors.size or vectors.dtype.kind != "f":
        raise InputError(
            f"{key}: {path}: floats [texts, dimensions] are needed, it has {vectors.dtype} {vectors.shape}"
        )
    return vectors


def _npy(path: Path, key: str) -> tuple[dict[Key, int], NDArray[np.float32]]:
    vectors = _array(path, key)
    texts = path.with_suffix(".jsonl")
    places: dict[Key, int] = {}
    count = 0
    for number, raw in raw_lines(texts):
        where = f"{key}: {texts} line {number}"
        places[_text(_json(raw, where), where, 'a string or {"text", "title"?}')] = count
        count += 1
    if count != len(vectors):
        raise InputError(f"{key}: {path} has {len(vectors)} vectors, {texts} {count} texts; line n is vector n's text")
    return places, vectors
