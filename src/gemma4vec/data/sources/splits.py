"""File names of a data set: which kinds of files can be read, and which files belong to a split."""

from collections.abc import Sequence
from pathlib import PurePath
from typing import TypeVar

from gemma4vec.errors import InputError

# Suffix of a file -> kind of source that reads it.
BY_SUFFIX = {".parquet": "parquet", ".jsonl": "jsonl", ".csv": "csv", ".tsv": "tsv"}

# Names of splits that occur in file names.
SPLITS = ("train", "validation", "valid", "dev", "test")

AnyPath = TypeVar("AnyPath", bound=PurePath)


def kind_of_file(name: str) -> str | None:
    """The kind of source that reads a file of this name; None if there is none."""
    return BY_SUFFIX.get(PurePath(name.removesuffix(".gz").removesuffix(".zst")).suffix)


def is_readable(name: str) -> bool:
    """Whether a kind of source reads a file of this name."""
    return kind_of_file(name) is not None


def files_of_split(where: str, files: Sequence[AnyPath], split: str) -> list[AnyPath]:
    """The files whose name starts with the split or whose folder has its name; all files if none names any split.

    Args:
        where: the folder or data set, for error messages.
        files: paths relative to it.
        split: name of the split.

    Raises:
        InputError: all named files belong to other splits. Guessing could train on a test split.
    """

    def named(split: str) -> list[AnyPath]:
        return [file for file in files if file.name.startswith(split) or split in file.parts[:-1]]

    found = named(split)
    others = [one for one in SPLITS if named(one)]
    if not found and files and (others or split != "train"):
        raise InputError(
            f"{where}: no file is named after the split {split!r}; there are files of "
            f"{', '.join(others) or 'no split'}; set the source's split"
        )
    return found or list(files)
