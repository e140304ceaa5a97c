"""JSON Lines, plain or compressed. Reading reports bad lines by number; writing is atomic and reproducible."""

import codecs
import gzip
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from gemma4vec.errors import InputError
from gemma4vec.files import atomic_write
from gemma4vec.reading.compressed import DAMAGED, limited_lines, open_bytes
from gemma4vec.reading.json_values import JsonError, loads_json


class Line(NamedTuple):
    """One line of a JSONL file: its number from 1, and its object, or None and the reason."""

    number: int
    value: dict[str, Any] | None
    reason: str = ""


def read_lines(path: Path) -> Iterator[Line]:
    """Every line of a JSONL file that is not blank (decompressed if the suffix is .gz or .zst).

    Raises:
        InputError: the file is missing, is a folder, cannot be read, or its compressed stream is damaged or truncated.
    """
    for number, raw in raw_lines(path):
        yield parse_line(number, raw)


def raw_lines(path: Path, *, blank: bool = False, offset: int = 0, before: int = 0) -> Iterator[tuple[int, bytes]]:
    """Number, from 1, and bytes of every line of a text file (.gz and .zst by suffix); blank lines only with `blank`.

    Args:
        path: the file.
        blank: yield blank lines too.
        offset: the byte at which to begin, the first of a line; of a compressed file, that of the unpacked stream.
        before: number of lines before it.

    Raises:
        InputError: as `read_lines`.
    """
    number = before
    try:
        with open_bytes(path) as stream:
            if offset:
                stream.seek(offset) if stream.seekable() else _skip(stream, offset)
            for number, raw in enumerate(limited_lines(stream, path), start=before + 1):
                if blank or raw.strip():
                    yield number, raw
    except DAMAGED as error:
        raise InputError(
            f"{path}: compressed stream damaged after line {number} ({error}); copy or make the file again"
        ) from error
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; check the path") from error
    except OSError as error:
        if path.suffix == ".zst" and error.errno is None:  # Arrow raises this for a damaged stream
            raise InputError(
                f"{path}: compressed stream damaged after line {number} ({error}); copy or make the file again"
            ) from error
        raise InputError(
            f"{path}: cannot be read ({error.strerror or error}); check the path and its permissions"
        ) from error


def _skip(stream: IO[bytes], count: int) -> None:
    """Read and forget bytes of a stream that cannot seek."""
    while count and (read := len(stream.read(min(count, 1 << 20)))):
        count -= read


def write_lines(path: Path, objects: Iterable[dict[str, Any]], level: int = 6) -> None:
    """Write objects as JSONL, atomically; gzipped if the name ends in .gz, without a timestamp in the file.

    Raises:
        WorkError: the disk is full or the folder cannot be written.
    """
    with atomic_write(path, "wb") as raw:
        if path.suffix != ".gz":
            raw.writelines(map(_encode, objects))
            return
        with gzip.GzipFile(filename="", mode="wb", compresslevel=level, fileobj=raw, mtime=0) as stream:
            stream.writelines(map(_encode, objects))


def _encode(value: dict[str, Any]) -> bytes:
    try:
        return (json.dumps(value, ensure_ascii=False) + "\n").encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate, which JSON can only escape
        return (json.dumps(value) + "\n").encode("ascii")


def parse_line(number: int, raw: bytes) -> Line:
    """The object of one line, or the reason why there is none."""
    try:
        # Readers of rows replace lone surrogates and refuse scores that are not finite.
        value = loads_json(raw, nonfinite=True, surrogates=True)
    except JsonError as fault:
        return Line(number, None, fault.reason)
    if not isinstance(value, dict):
        return Line(number, None, f"expected a JSON object, not {json_type(value)}")
    return Line(number, value)


def explain_not_utf8(error: UnicodeDecodeError, raw: bytes) -> str:
    """Why a line is not UTF-8, for error messages; files of UTF-16 are recognized by their first two bytes."""
    utf16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return f"not UTF-8 at byte {error.start}" + (" (is it UTF-16?)" if utf16 else "")


def json_type(value: object) -> str:
    """The JSON type of a value, for error messages."""
    names = {str: "a string", list: "a list", bool: "a boolean", int: "a number", float: "a number", dict: "an object"}
    return names.get(type(value), "null")
