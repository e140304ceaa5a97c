"""From a recipe's source to its records, and to what they depend on: the one interface of all kinds of sources."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from gemma4vec.data.rows.records import Record, jsonl_records, text_records
from gemma4vec.data.sources.beir import beir_files, beir_records
from gemma4vec.data.sources.debian import debian_records, find_description_files
from gemma4vec.data.sources.hub_files import hub_files
from gemma4vec.data.sources.splits import BY_SUFFIX, files_of_split, is_readable, kind_of_file, splits_of_file
from gemma4vec.data.sources.tables import csv_records, dataset_records, is_saved_dataset, open_dataset, parquet_records
from gemma4vec.data.sources.token_files import sqlite_records
from gemma4vec.errors import InputError
from gemma4vec.machine.hub import is_hub_id
from gemma4vec.recipe.sources import (
    BeirSource,
    CsvSource,
    DatasetsSource,
    DebianSource,
    DocumentsSource,
    JsonlSource,
    ParquetSource,
    PycodeSource,
    Source,
    SqliteSource,
    TensorsSource,
    TextSource,
    TsvSource,
)


@dataclass(frozen=True)
class SourceReader:
    """The input of one source.

    Attributes:
        where: path or name, for messages.
        records: starts reading; yields one record after the other.
        files: files that the records depend on.
        identity: everything else that the records depend on.
        other_bytes: bytes that are read from elsewhere.
        revision: the commit, for a hub data set.
    """

    where: str
    records: Callable[[], Iterator[Record]]
    files: tuple[Path, ...] = ()
    identity: str = ""
    other_bytes: int = 0
    revision: str = ""

    @property
    def bytes(self) -> int:
        """Bytes of all input."""
        return self.other_bytes + sum(file.stat().st_size for file in self.files if file.is_file())


def open_reader(source: Source) -> SourceReader:
    """Return the reader of a source.

    `pycode` and `documents` are built first, and `tensors` are mapped in place: `data.loading.load_rows` does both.

    Raises:
        InputError: there is nothing to read.
    """
    match source:
        case DebianSource():
            return _debian(source)
        case DatasetsSource():
            return _dataset(source)
        case PycodeSource() | DocumentsSource() | TensorsSource():
            raise TypeError(f"a {source.source} source is not read as records")
    path = Path(source.path).expanduser()
    match source:
        case BeirSource():
            return SourceReader(str(path), lambda: beir_records(path, source.split), beir_files(path, source.split))
        case ParquetSource():
            if path.is_dir():
                files = sorted(path.glob("*.parquet"))
                _refuse_several_splits(path, files)
                return _files(str(path), files, ".parquet", lambda file: parquet_records(file, source))
            return _file(path, lambda: parquet_records(path, source))
        case JsonlSource():
            return _file(path, lambda: jsonl_records(path))
        case TextSource():
            return _file(path, lambda: text_records(path))
        case CsvSource():
            return _file(path, lambda: csv_records(path, source))
        case TsvSource():
            return _file(path, lambda: csv_records(path, source, tabs=True))
        case SqliteSource():
            return _file(path, lambda: sqlite_records(path, source))


def _debian(source: DebianSource) -> SourceReader:
    path = Path(source.path).expanduser() if source.path else None
    files = find_description_files(source.language, path)
    return SourceReader(str(files[0].parent), lambda: debian_records(files, source.language), tuple(files))


def _file(path: Path, records: Callable[[], Iterator[Record]]) -> SourceReader:
    return SourceReader(str(path), records, (path,))


def _files(
    where: str, files: Sequence[Path], known: str, records: Callable[[Path], Iterator[Record]], revision: str = ""
) -> SourceReader:
    """Files read one after the other, each with the columns that it has."""
    if not files:
        raise InputError(f"{where}: no file to read ({known}); check the source's path")
    every = lambda: chain.from_iterable(records(file) for file in files)  # noqa: E731
    return SourceReader(where, every, tuple(files), revision=revision)


def _refuse_several_splits(folder: Path, files: Sequence[Path]) -> None:
    """Refuse to read the training and test files of a folder together."""
    splits = list(dict.fromkeys(one for file in files for one in splits_of_file(Path(file.name))))
    if len(splits) > 1:
        raise InputError(
            f"{folder}: has files of the splits {', '.join(splits)}; use source: datasets and set its split, or name "
            "one file as the path"
        )


def _file_of_dataset(source: DatasetsSource, file: Path) -> Iterator[Record]:
    """Records of one file of a data set; its name decides the kind of file."""
    kind = kind_of_file(file.name)
    if kind == "parquet":
        return parquet_records(file, source)
    return jsonl_records(file) if kind == "jsonl" else csv_records(file, source, tabs=kind == "tsv")


def _dataset(source: DatasetsSource) -> SourceReader:
    """A hub data set, a data set that was saved to disk, or a folder of files."""
    path, known = Path(source.path).expanduser(), ", ".join(BY_SUFFIX)
    if is_saved_dataset(path):
        return _by_library(source, source.path)
    if path.is_dir():
        files_below = (file for file in sorted(path.rglob("*")) if file.is_file() and is_readable(file.name))
        names = [file.relative_to(path) for file in files_below]
        files = [path / name for name in files_of_split(str(path), names, source.split)]
        return _files(str(path), files, known, lambda file: _file_of_dataset(source, file))
    if path.exists():
        raise InputError(f"{path}: a file is not a data set; use source: {BY_SUFFIX.get(path.suffix, 'jsonl')}")
    if not is_hub_id(source.path):
        raise InputError(f"{source.path}: not a folder and not a hub id (owner/name); check the source's path")
    found = hub_files(source.path, source.subset, source.split)
    if found.files:
        return _files(source.path, found.files, known, lambda file: _file_of_dataset(source, file), found.commit)
    return _by_library(source, f"{source.path.partition('@')[0]}@{found.commit}", found.commit)


def _by_library(source: DatasetsSource, name: str, revision: str = "") -> SourceReader:
    dataset = open_dataset(name, source.subset, source.split)
    return SourceReader(
        source.path,
        lambda: dataset_records(dataset, source),
        identity=str(dataset._fingerprint),
        other_bytes=int(dataset.data.nbytes),
        revision=revision,
    )
