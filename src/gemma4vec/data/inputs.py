"""The one interface of all sources: what a recipe names as something that gives records, and what it depends on."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from gemma4vec.data.beir import beir_files, beir_records
from gemma4vec.data.debian import debian_records, description_files
from gemma4vec.data.records import Record, jsonl_records, text_records
from gemma4vec.data.tables import csv_records, dataset_records, open_dataset, parquet_records
from gemma4vec.data.token_files import sqlite_records
from gemma4vec.errors import InputError
from gemma4vec.recipe.sources import Source

# Suffixes of the files of a data set in a local folder, and how each kind is read.
BY_SUFFIX = {".parquet": "parquet", ".jsonl": "jsonl", ".csv": "csv", ".tsv": "tsv"}

# What the files of a split are named after.
SPLITS = ("train", "validation", "valid", "dev", "test")


@dataclass(frozen=True)
class Input:
    """What a source is read from.

    Attributes:
        where: its path or name, for people.
        records: starts reading.
        files: files whose bytes decide what is read.
        identity: what decides it beside files.
        other_bytes: size of what is read beside files.
    """

    where: str
    records: Callable[[], Iterator[Record]]
    files: tuple[Path, ...] = ()
    identity: str = ""
    other_bytes: int = 0

    @property
    def bytes(self) -> int:
        """Size of all that is read."""
        return self.other_bytes + sum(file.stat().st_size for file in self.files if file.is_file())


def open_input(source: Source, say: Callable[[str], None]) -> Input:
    """What a source is read from. `pycode` is built first, `tensors` stay where they are (`data.sources`).

    Raises:
        InputError: there is nothing to read.
    """
    path = Path(source.path).expanduser() if source.path else None
    if source.source == "debian":
        files = description_files(source.language, path, say)
        return Input(str(files[0].parent), lambda: debian_records(files, source.language), tuple(files))
    assert path is not None
    if source.source == "beir":
        return Input(str(path), lambda: beir_records(path, source.split), beir_files(path, source.split))
    if source.source == "datasets":
        return _dataset(source, path)
    if source.source == "parquet" and path.is_dir():
        return _folder(source, path, sorted(path.glob("*.parquet")))
    return _file(source, path)


def _file(source: Source, path: Path) -> Input:
    readers: dict[str, Callable[[], Iterator[Record]]] = {
        "jsonl": lambda: jsonl_records(path),
        "text": lambda: text_records(path),
        "parquet": lambda: parquet_records(path, source),
        "csv": lambda: csv_records(path, source),
        "tsv": lambda: csv_records(path, source),
        "sqlite": lambda: sqlite_records(path, source),
    }
    return Input(str(path), readers[source.source], (path,))


def _folder(source: Source, folder: Path, files: list[Path]) -> Input:
    """Files read one after the other, each with the columns that it has."""
    if not files:
        kinds = ", ".join(BY_SUFFIX) if source.source == "datasets" else ".parquet"
        raise InputError(f"{folder}: no file to read ({kinds}); check the source's path")
    inputs = [_file(source.model_copy(update={"source": _kind(file)}), file) for file in files]
    return Input(str(folder), lambda: chain.from_iterable(one.records() for one in inputs), tuple(files))


def _kind(file: Path) -> str:
    name = file.name.removesuffix(".gz").removesuffix(".zst")
    return BY_SUFFIX[Path(name).suffix]


def _dataset(source: Source, path: Path) -> Input:
    """A hub's data set, one saved to disk, or a folder of plain files."""
    if path.is_dir() and not ((path / "state.json").is_file() or (path / "dataset_dict.json").is_file()):
        known = [
            file
            for file in sorted(path.rglob("*"))
            if file.is_file() and Path(file.name.removesuffix(".gz").removesuffix(".zst")).suffix in BY_SUFFIX
        ]
        return _folder(source, path, _of_split(source, path, known))
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: a file is no data set; use source: {BY_SUFFIX.get(path.suffix, 'jsonl')}")
    dataset = open_dataset(source)
    return Input(
        str(source.path),
        lambda: dataset_records(source),
        identity=str(dataset._fingerprint),
        other_bytes=int(dataset.data.nbytes),
    )


def _of_split(source: Source, folder: Path, files: list[Path]) -> list[Path]:
    """The files named after the split, or that lie in a folder of its name; all of them where none names any split.

    Raises:
        InputError: files are named after other splits alone: nobody should train on a test split unawares.
    """

    def named(split: str) -> list[Path]:
        return [file for file in files if file.name.startswith(split) or split in file.relative_to(folder).parts[:-1]]

    found = named(source.split)
    others = [split for split in SPLITS if named(split)]
    if not found and files and (others or source.split != "train"):
        raise InputError(
            f"{folder}: no file is named after the split {source.split!r}; there are files of "
            f"{', '.join(others) or 'no split'}; set the source's split"
        )
    return found or files
