"""The one interface of all sources: what a recipe names as something that gives records, and what it depends on."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from gemma4vec.data.rows.records import Record, jsonl_records, text_records
from gemma4vec.data.sources.beir import beir_files, beir_records
from gemma4vec.data.sources.debian import debian_records, find_description_files
from gemma4vec.data.sources.hub_files import hub_files
from gemma4vec.data.sources.splits import BY_SUFFIX, files_of_split, is_readable, kind_of_file
from gemma4vec.data.sources.tables import csv_records, dataset_records, is_saved_dataset, open_dataset, parquet_records
from gemma4vec.data.sources.token_files import sqlite_records
from gemma4vec.errors import InputError
from gemma4vec.machine.hub import is_hub_id
from gemma4vec.recipe.sources import Source


@dataclass(frozen=True)
class SourceReader:
    """What a source is read from.

    Attributes:
        where: its path or name, for people.
        records: starts reading.
        files: files whose bytes decide what is read.
        identity: what decides it beside files.
        other_bytes: size of what is read beside files.
        revision: the hub's commit, of a hub's data set.
    """

    where: str
    records: Callable[[], Iterator[Record]]
    files: tuple[Path, ...] = ()
    identity: str = ""
    other_bytes: int = 0
    revision: str = ""

    @property
    def bytes(self) -> int:
        """Size of all that is read."""
        return self.other_bytes + sum(file.stat().st_size for file in self.files if file.is_file())


def open_reader(source: Source, say: Callable[[str], None]) -> SourceReader:
    """What a source is read from. `pycode` is built first, `tensors` stay where they are (`data.loading.load_rows`).

    Raises:
        InputError: there is nothing to read.
    """
    path = Path(source.path).expanduser() if source.path else None
    if source.source == "debian":
        files = find_description_files(source.language, path, say)
        return SourceReader(str(files[0].parent), lambda: debian_records(files, source.language), tuple(files))
    assert path is not None
    if source.source == "beir":
        return SourceReader(str(path), lambda: beir_records(path, source.split), beir_files(path, source.split))
    if source.source == "datasets":
        return _dataset(source, path, say)
    if source.source == "parquet" and path.is_dir():
        return _folder(source, str(path), sorted(path.glob("*.parquet")))
    return _file(source, path)


def _file(source: Source, path: Path) -> SourceReader:
    readers: dict[str, Callable[[], Iterator[Record]]] = {
        "jsonl": lambda: jsonl_records(path),
        "text": lambda: text_records(path),
        "parquet": lambda: parquet_records(path, source),
        "csv": lambda: csv_records(path, source),
        "tsv": lambda: csv_records(path, source),
        "sqlite": lambda: sqlite_records(path, source),
    }
    return SourceReader(str(path), readers[source.source], (path,))


def _folder(source: Source, where: str, files: Sequence[Path], revision: str = "") -> SourceReader:
    """Files read one after the other, each with the columns that it has."""
    if not files:
        kinds = ", ".join(BY_SUFFIX) if source.source == "datasets" else ".parquet"
        raise InputError(f"{where}: no file to read ({kinds}); check the source's path")
    inputs = [_file(source.model_copy(update={"source": kind_of_file(file.name)}), file) for file in files]
    records = lambda: chain.from_iterable(one.records() for one in inputs)  # noqa: E731
    return SourceReader(where, records, tuple(files), revision=revision)


def _dataset(source: Source, path: Path, say: Callable[[str], None]) -> SourceReader:
    """A hub's data set, one saved to disk, or a folder of plain files."""
    if is_saved_dataset(path):
        return _by_library(source, str(source.path))
    if path.is_dir():
        known = [
            file.relative_to(path) for file in sorted(path.rglob("*")) if file.is_file() and is_readable(file.name)
        ]
        files = files_of_split(str(path), known, source.split)
        return _folder(source, str(path), [path / file for file in files])
    if path.exists():
        raise InputError(f"{path}: a file is no data set; use source: {BY_SUFFIX.get(path.suffix, 'jsonl')}")
    assert source.path is not None
    if not is_hub_id(source.path):
        raise InputError(f"{source.path}: no such folder, and no id of the hub (owner/name); check the source's path")
    found = hub_files(source.path, source.subset, source.split, say)
    if found.files:
        return _folder(source, source.path, found.files, found.commit)
    return _by_library(source, f"{source.path.partition('@')[0]}@{found.commit}", found.commit)


def _by_library(source: Source, name: str, revision: str = "") -> SourceReader:
    dataset = open_dataset(name, source.subset, source.split)
    return SourceReader(
        str(source.path),
        lambda: dataset_records(dataset, source),
        identity=str(dataset._fingerprint),
        other_bytes=int(dataset.data.nbytes),
        revision=revision,
    )
