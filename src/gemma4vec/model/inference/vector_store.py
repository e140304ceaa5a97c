"""Vectors on disk, by the hash of their text.

The cache has one folder for each model. It contains segments that are written once and never changed, so that several
processes can write at the same time. A segment is two arrays, keys `[N, 16]` and vectors `[N, D]`; only the keys are
read into memory.

Shapes: N texts, D dimensions.
"""

import os
import secrets
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemma4vec.errors import WorkError
from gemma4vec.files import atomic_write, cache, write_json

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
        self._segments: list[Vectors] = []
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
        for segment, pairs in wanted.items():
            positions, rows = zip(*pairs, strict=True)
            vectors_ND[list(positions)] = self._segments[segment][list(rows)]
        if wanted:
            self._used()
        return vectors_ND, missing

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
            np.save(stream, np.ascontiguousarray(vectors_ND[rows], dtype="<f4"))
        self._used()
        self._open(path)
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
                shape, dtype = _header(stream)
                start = stream.tell()
            whole = keys.shape == (shape[0], KEY_BYTES) and shape[1:] == (self.dimension,) and dtype == np.dtype("<f4")
            if not whole or path.stat().st_size != start + 4 * shape[0] * shape[1]:
                return
            vectors_ND = np.memmap(path, np.dtype("<f4"), mode="r", offset=start, shape=shape)
        except (OSError, ValueError, EOFError, IndexError):
            return
        number = len(self._segments)
        self._segments.append(vectors_ND)
        for row, key in enumerate(keys):
            self._places.setdefault(key.tobytes(), (number, row))


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
