"""A sample of the rows that `build_pycode` would make: enough to know the length of texts, in seconds.

Building reads every Python file of the environment, which takes a minute or two. A dry run only has to know what
batches will hold. A sample reads a few files, drawn by hash; its hard negatives are mined among the sample's functions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from gemma4vec.data.pycode.build import locate_pycode, split_functions, training_rows
from gemma4vec.data.pycode.split import sort_by_hash
from gemma4vec.data.pycode.walk import SourceFile
from gemma4vec.data.pycode.worker import extract_files
from gemma4vec.data.rows.rows import Row
from gemma4vec.machine.memory import paused_collections

# Bytes of Python that are read: some 1,500 rows of the environment's code.
SAMPLE_BYTES = 8_000_000
# Less code than this is built: it takes no longer than a few seconds.
_WORTH_IT = 3 * SAMPLE_BYTES


@dataclass(frozen=True)
class PyCodeSample:
    """Rows of some files.

    Attributes:
        rows: with hard negatives.
        path: the file of rows that the whole build will write.
        files, all_files: numbers of files that were read, and that the build will read.
    """

    rows: list[Row]
    path: Path
    files: int
    all_files: int


def sample_pycode(
    data: Path | None = None, *, folder: Path | None = None, negatives: int = 4, size: int = SAMPLE_BYTES
) -> PyCodeSample | None:
    """Sample the rows of the code in its present state; None: they are built already, or there is little code.

    Args:
        data: where built folders are; by default `HOME/data`.
        folder: code to read; by default the running environment.
        negatives: number of hard negatives per row.
        size: bytes of Python to read.

    Raises:
        InputError: there are no Python files.
    """
    out, files = locate_pycode(data, folder=folder, negatives=negatives)
    if (out / "manifest.json").is_file() or sum(file.size for file in files) < _WORTH_IT * size / SAMPLE_BYTES:
        return None
    drawn = _draw(files, size)
    return PyCodeSample(_read_rows(drawn, folder, negatives), out / "train.jsonl.gz", len(drawn), len(files))


@lru_cache(maxsize=1)  # the stages of a recipe often read the same code
def _read_rows(files: tuple[SourceFile, ...], folder: Path | None, negatives: int) -> list[Row]:
    with paused_collections():  # while syntax trees are built they take a third of the time
        extracted = extract_files(files, processes=1)
    return training_rows(split_functions(extracted.functions, folder, None), negatives)


def _draw(files: Sequence[SourceFile], size: int) -> tuple[SourceFile, ...]:
    """Draw files by hash until they have `size` bytes; return them in the given order."""
    by_path = {file.path: file for file in files}
    chosen: set[str] = set()
    filled = 0
    for path in sort_by_hash(by_path):
        if filled >= size:
            break
        chosen.add(path)
        filled += by_path[path].size
    return tuple(file for file in files if file.path in chosen)
