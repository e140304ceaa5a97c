"""Which files of a data set's folder can be read, and which belong to a split, by their names."""

from collections.abc import Sequence
from pathlib import PurePath
from typing import TypeVar

from gemma4vec.errors import InputError

# Suffixes of the files of a data set, and how each kind is read.
BY_SUFFIX = {".parquet": "parquet", ".jsonl": "jsonl", ".csv": "csv", ".tsv": "tsv"}

# What the files of a split are named after.
SPLITS = ("train", "validation", "valid", "dev", "test")

AnyPath = TypeVar("AnyPath", bound=PurePath)


def kind_of_file(name: str) -> str | None:
    """How a file is read, by its name; None where it is not."""
    return BY_SUFFIX.get(PurePath(name.removesuffix(".gz").removesuffix(".zst")).suffix)


def is_readable(name: str) -> bool:
    """Whether a file of this name is read."""
    return kind_of_file(name) is not None


def files_of_split(where: str, files: Sequence[AnyPath], split: str) -> list[AnyPath]:
    """The files named after the split, or that lie in a folder of its name; all of them where none names any split.

    Args:
        where: the folder or data set, for people.
        files: paths below it.
        split: which split.

    Raises:
        InputError: files are named after other splits alone: nobody should train on a test split unawares.
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
