"""Files that may be compressed (.gz, .zst), with limits on what they unpack to.

A file of some kilobytes can unpack to terabytes. Text shrinks to a third or, if it repeats itself, to a fiftieth.
"""

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from gemma4vec.errors import InputError

LONGEST_LINE = 64 * 2**20  # bytes
ALWAYS_ALLOWED = 2**30  # bytes
MOST_TIMES = 200  # what is unpacked beyond that, by its compressed size
_BUFFER = 2**16
# What the readers raise for a damaged stream; Arrow's OSError has no number.
DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile)


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file for reading, unpacked if its suffix is .gz or .zst.

    Reading raises `InputError` where a file unpacks to over 1 GiB and over 200 times its size, `OSError` or `EOFError`
    where its stream is damaged.
    """
    if path.suffix not in (".gz", ".zst"):
        return path.open("rb")
    unpacked = _open_zstd(path) if path.suffix == ".zst" else _open_gzip(path)
    return io.BufferedReader(_Limited(path, unpacked), _BUFFER)  # type: ignore[type-var,return-value]


def limited_lines(stream: IO[bytes], path: Path) -> Iterator[bytes]:
    """The lines of a stream, with their ends.

    Raises:
        InputError: a line of over 64 MiB.
    """
    number = 0
    while raw := stream.readline(LONGEST_LINE + 1):
        number += 1
        if len(raw) > LONGEST_LINE:
            raise InputError(f"{path} line {number}: longer than {LONGEST_LINE / 2**20:.0f} MiB; split it")
        yield raw


class _Limited(io.RawIOBase):
    """An unpacked stream that ends with an error where it grows out of proportion."""

    def __init__(self, path: Path, stream: IO[bytes]):
        self._path, self._stream, self._read = path, stream, 0
        self._limit = max(ALWAYS_ALLOWED, MOST_TIMES * path.stat().st_size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        raw = self._stream.read(len(buffer))
        self._read += len(raw)
        if self._read > self._limit:
            raise InputError(
                f"{self._path}: unpacks to over {self._limit / 2**30:.0f} GiB, more than {MOST_TIMES} times its size; "
                "if that is meant, unpack it and name the unpacked file"
            )
        buffer[: len(raw)] = raw
        return len(raw)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _open_gzip(path: Path) -> IO[bytes]:
    stream: Any = gzip.open(path, "rb")  # noqa: SIM115  # whoever reads it closes it
    opened: IO[bytes] = stream
    return opened


def _open_zstd(path: Path) -> IO[bytes]:
    """Zstandard through Arrow: the package `zstandard` silently stops at a truncated file or a second frame."""
    import pyarrow

    stream: IO[bytes] = pyarrow.input_stream(str(path), compression="zstd")
    return stream
