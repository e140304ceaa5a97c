"""Mapped files hold the same values after their pages were released."""

import mmap
from pathlib import Path

import numpy as np
import pytest

from gemma4vec.data.rows.memmap import MappedFile, release_pages


def test_released_pages_are_read_again(tmp_path: Path) -> None:
    values = np.arange(5 * mmap.PAGESIZE, dtype=np.int32)
    values.tofile(tmp_path / "values")
    mapped = MappedFile(tmp_path / "values", np.int32)
    assert mapped.array.sum() == values.sum()
    mapped.release()
    assert np.array_equal(mapped.array, values)
    array = np.memmap(tmp_path / "values", dtype=np.int32, mode="r")
    release_pages(array)
    release_pages(array[3:7])  # less than a page: nothing to release
    release_pages(array[:0])
    assert np.array_equal(array, values)


def test_empty_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    empty = MappedFile(tmp_path / "empty", np.int64)
    empty.release()
    assert empty.array.shape == (0,) and empty.array.dtype == np.int64
    with pytest.raises(FileNotFoundError):
        MappedFile(tmp_path / "none", np.int64)
