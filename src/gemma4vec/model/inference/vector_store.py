"""Vectors on disk, by the hash of their text.

The cache has one folder for each model. It contains segments that are written once and never changed, so that several
processes can write at the same time. A segment is three arrays: keys `[N, 16]`, checksums `[N]` of key and vector, and
vectors `[N, D]`. Keys and checksums are read into memory, and each vector is checked when it is used.

Shapes: N texts, D dimensions.
"""

import logging
import os
import secrets
import shutil
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gemma4vec.errors import WorkError
from gemma4vec.files import NPY_ERRORS, atomic_write, cache, write_json

logger = logging.getLogger(__name__)

Vectors = NDArray[np.float32]

KEY_BYTES = 16
SEGMENT, META, USED = ".vectors", "model.json", "used"
LIMIT_VARIABLE, DEFAULT_LIMIT_GB = "GEMMA4VEC_VECTOR_CACHE_GB", 10.0


def vectors_folder() -> Path:
    """Folder of all models' vectors: `vectors/` of the cache."""
    return cache() / "vectors"


def limit_bytes() -> int:
    """Disk space in bytes for the vectors of all models: `$GEMMA4VEC_VECTOR_CACHE_GB` (1e9 bytes each), by default 10.

    Raises:
        WorkError: the variable is not a number.
    """
    text = os.environ.get(LIMIT_VARIABLE) or str(DEFAULT_LIMIT_GB)
    try:
        return int(float(text) * 1e9)
    except (ValueError, OverflowError) as error:
        raise WorkError(f"{LIMIT_VARIABLE}={text} is not a number of gigabytes; use one such as 10") from error


class Segment(NamedTuple):
    """One file of vectors `[N, D]` with the checksum `[N]` of each."""

    path: Path
    checksums: NDArray[np.uint32]
    vectors_ND: Vectors


class VectorStore:
    """The vectors of one model.

    Args:
        root: folder of all models' vectors.
        name: name of this model's folder; settings that change vectors must change it.
        dimension: D.
        about: description for people, stored in the folder.
    """

    def __init__(self, root: Path, name: str, dimension: int, about: dict[str, Any]):
        self.root, self.folder, self.dimension, self._about = root, root / name, dimension, about
        self._places: dict[bytes, tuple[int, int]] = {}  # key -> segment, row
        self._segments: list[Segment] = []
        limit_bytes()  # a wrong limit is reported before the work
        for path in sorted(self.folder.glob(f"*{SEGMENT}")):
            self._open(path)

    def get(self, keys: Sequence[bytes]) -> tuple[Vectors, list[int]]:
        """Vectors `[N, D]` of texts, and the positions of missing ones, whose rows are zero."""
        vectors_ND = np.zeros((len(keys), self.dimension), dtype=np.float32)
        missing = []
        wanted: dict[int, list[tuple[int, int]]] = {}
        for position, key in enumerate(keys):
            place = self._places.get(key)
            if place is None:
                missing.append(position)
            else:
                wanted.setdefault(place[0], []).append((position, place[1]))
        for number, pairs in wanted.items():
            positions, rows = zip(*pairs, strict=True)
            segment = self._segments[number]
            found = segment.vectors_ND[list(rows)]
            known = segment.checksums[list(rows)]
            damaged = [p for p, row, one in zip(positions, found, known, strict=True) if _checksum(keys[p], row) != one]
            vectors_ND[list(positions)] = found
            if damaged:
                vectors_ND[damaged] = 0.0
                missing += damaged
                self._discard(number)
        if wanted:
            self._used()
        return vectors_ND, sorted(missing)

    def _discard(self, number: int) -> None:
        """Forget a damaged segment: its texts will be encoded and stored again."""
        path = self._segments[number].path
        logger.warning(f"{path} is damaged: vectors in it differ from what was written; its texts are encoded again")
        self._places = {key: place for key, place in self._places.items() if place[0] != number}
        with suppress(OSError):
            path.unlink(missing_ok=True)

    def put(self, keys: Sequence[bytes], vectors_ND: Vectors) -> None:
        """Store vectors `[N, D]`; beyond the limit, the least recently used models are deleted.

        A set of vectors that exceeds the limit by itself is not stored.

        Raises:
            WorkError: the disk is full, or the folder cannot be written.
        """
        first = {key: row for row, key in reversed(list(enumerate(keys))) if key not in self._places}
        rows = sorted(first.values())
        limit = limit_bytes()
        if not rows or len(rows) * (4 * self.dimension + KEY_BYTES) > limit:
            return
        if not (self.folder / META).exists():
            write_json(self.folder / META, self._about)
        path = self.folder / f"{secrets.token_hex(8)}{SEGMENT}"
        with atomic_write(path, "wb") as stream:
            np.save(stream, np.frombuffer(b"".join(keys[row] for row in rows), np.uint8).reshape(-1, KEY_BYTES))
            stored_ND = np.ascontiguousarray(vectors_ND[rows], dtype="<f4")
            checksums = [_checksum(keys[row], vector) for row, vector in zip(rows, stored_ND, strict=True)]
            np.save(stream, np.array(checksums, dtype="<u4"))
            np.save(stream, stored_ND)
        self._used()
        self._open(path)
        with suppress(OSError):  # another process makes room at the same time
            _make_room(self.root, self.folder, limit)

    def _used(self) -> None:
        """Record that these vectors were just used."""
        # Another process may have deleted the folder; open segments stay readable.
        with suppress(OSError):
            (self.folder / USED).touch()

    def _open(self, path: Path) -> None:
        """Open a segment. A damaged one is skipped, and its texts will be encoded again."""
        try:
            with path.open("rb") as stream:
                keys = np.load(stream, allow_pickle=False)
                checksums = np.load(stream, allow_pickle=False)
                shape, dtype = _header(stream)
                start = stream.tell()
            whole = keys.shape == (shape[0], KEY_BYTES) and shape[1:] == (self.dimension,) and dtype == np.dtype("<f4")
            whole = whole and checksums.shape == (shape[0],) and checksums.dtype == np.dtype("<u4")
            if not whole or path.stat().st_size != start + 4 * shape[0] * shape[1]:
                return
            vectors_ND = np.memmap(path, np.dtype("<f4"), mode="r", offset=start, shape=shape)
        except (OSError, *NPY_ERRORS):
            return
        number = len(self._segments)
        self._segments.append(Segment(path, checksums, vectors_ND))
        for row, key in enumerate(keys):
            self._places.setdefault(key.tobytes(), (number, row))


def _checksum(key: bytes, vector_D: Vectors) -> int:
    return zlib.crc32(vector_D.tobytes(), zlib.crc32(key))


def _header(stream: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of the array at the stream's position; leaves the stream at its first value."""
    np.lib.format.read_magic(stream)
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    return shape, dtype


def _make_room(root: Path, own: Path, limit: int) -> None:
    """Delete the least recently used models until the rest fits; the model in use comes last."""
    sizes = {path: folder_bytes(path) for path in root.iterdir() if path.is_dir()}
    total = sum(sizes.values())
    for path in sorted(sizes, key=lambda one: (one == own, last_used(one))):
        if total <= limit:
            return
        if path == own:
            # Only this model is left: delete its oldest segments. Open ones stay readable.
            for segment in sorted(own.glob(f"*{SEGMENT}"), key=lambda one: one.stat().st_mtime_ns)[:-1]:
                total -= segment.stat().st_size
                segment.unlink(missing_ok=True)
                if total <= limit:
                    return
            return
        shutil.rmtree(path, ignore_errors=True)
        total -= sizes[path]


def folder_bytes(folder: Path) -> int:
    """Disk space of a model's vectors, in bytes."""
    total = 0
    for path in folder.glob("*"):
        try:
            total += path.stat().st_size
        except OSError:
            continue  # another process just deleted it
    return total


def last_used(folder: Path) -> float:
    """Time of the last use of a model's vectors, in seconds since 1970."""
    try:
        return (folder / USED).stat().st_mtime
    except OSError:
        return 0.0
