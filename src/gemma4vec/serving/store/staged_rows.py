"""Rows that were added to a store of our own files and are not yet built in: one Arrow file for each batch.

A batch is written to a temporary file, flushed and renamed, so a killed process leaves whole batches alone.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gemma4vec.errors import InputError
from gemma4vec.files import atomic_write

FOLDER = "staged"


def write_arrow(path: Path, schema: pa.Schema, batches: Sequence[pa.RecordBatch] | Iterator[pa.RecordBatch]) -> None:
    """Write an Arrow file atomically."""
    with atomic_write(path, "wb") as stream, pa.ipc.new_file(stream, schema) as writer:
        for batch in batches:
            writer.write(batch)


def map_arrow(path: Path) -> pa.Table:
    """Map an Arrow file into memory.

    Raises:
        InputError: it is damaged.
    """
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        for column in table.columns:
            for chunk in column.chunks:
                _check_offsets(chunk)
        return table
    except (pa.ArrowInvalid, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path} is damaged ({reason}); drop the store and build it again") from error


def _check_offsets(values: pa.Array) -> None:
    """Refuse values whose places lead out of the file: reading them would end the process, not raise an error.

    `validate(full=True)` would read all texts too, which are gigabytes in a large store; places are a few bytes a row.

    Raises:
        pa.ArrowInvalid: sizes of the buffers or places are wrong.
    """
    values.validate()
    kind = values.type
    small = pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_list(kind)
    large = pa.types.is_large_string(kind) or pa.types.is_large_binary(kind) or pa.types.is_large_list(kind)
    if (small or large) and len(values):
        places: NDArray[np.int64] = np.frombuffer(values.buffers()[1], dtype=np.int32 if small else np.int64)
        places = places[values.offset : values.offset + len(values) + 1]
        if np.any(places[1:] < places[:-1]):
            raise pa.ArrowInvalid("places of texts that run backward")
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        _check_offsets(values.values)


class StagedRows:
    """The batches in a folder, in the order in which they were added."""

    def __init__(self, folder: Path, after: int) -> None:
        """Open the folder; batches up to number `after` are built in and ignored."""
        self.folder, self.after = folder, after

    def files(self) -> list[Path]:
        """Return the files of batches, in order."""
        if not self.folder.is_dir():
            return []
        found = [path for path in self.folder.glob("*.arrow") if path.stem.isdigit() and int(path.stem) > self.after]
        return sorted(found, key=lambda path: int(path.stem))

    def last(self) -> int:
        """Return the number of the last batch."""
        found = self.files()
        return int(found[-1].stem) if found else self.after

    def write(self, rows: pa.RecordBatch) -> None:
        """Write one batch."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_arrow(self.folder / f"{self.last() + 1:08d}.arrow", rows.schema, [rows])

    def tables(self) -> list[pa.Table]:
        """Return the mapped batches."""
        return [map_arrow(path) for path in self.files()]

    def remove(self, through: int) -> None:
        """Remove the batches up to number `through`."""
        for path in self.folder.glob("*.arrow"):
            if path.stem.isdigit() and int(path.stem) <= through:
                path.unlink(missing_ok=True)


def merge_order(tables: Sequence[pa.Table]) -> NDArray[np.int64]:
    """Return, for each id in the order of its first row, the position of its last row in all tables together."""
    winners: dict[str, int] = {}
    position = 0
    for table in tables:
        for chunk in table.column("id").chunks:
            for identity in chunk.to_pylist():
                winners[identity] = position
                position += 1
    return np.fromiter(winners.values(), np.int64, len(winners))


def take_in_order(table: pa.Table, positions: NDArray[np.int64], rows: int) -> Iterator[pa.Table]:
    """Yield the rows at `positions`, at most `rows` at once. Consecutive rows are not copied."""
    for start in range(0, len(positions), rows):
        part = positions[start : start + rows]
        if part[-1] - part[0] == len(part) - 1 and (np.diff(part) == 1).all():
            yield table.slice(int(part[0]), len(part))
        else:
            # Indices refer to a narrow slice, so that only its chunks are read.
            low, high = int(part.min()), int(part.max())
            yield table.slice(low, high - low + 1).take(pa.array(part - low))
