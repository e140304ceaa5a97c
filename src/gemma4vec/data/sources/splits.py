"""File names of a data set: which kinds of files can be read, and which files belong to a split."""

import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import TypeVar

from gemma4vec.errors import InputError

# Suffix of a file -> kind of source that reads it.
BY_SUFFIX = {".parquet": "parquet", ".jsonl": "jsonl", ".csv": "csv", ".tsv": "tsv"}

# Splits, each with the words for it in file and folder names. They are those of the `datasets` library and a few more.
SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "development"),
    "test": ("test", "testing", "eval", "evaluation", "holdout", "heldout"),
}
SPLIT_OF_WORD = {word + end: split for split, words in SPLITS.items() for word in words for end in ("", "set", "data")}

AnyPath = TypeVar("AnyPath", bound=PurePath)


def kind_of_file(name: str) -> str | None:
    """The kind of source that reads a file of this name; None if there is none."""
    return BY_SUFFIX.get(PurePath(name.removesuffix(".gz").removesuffix(".zst")).suffix)


def is_readable(name: str) -> bool:
    """Whether a kind of source reads a file of this name."""
    return kind_of_file(name) is not None


def files_of_split(where: str, files: Sequence[AnyPath], split: str) -> list[AnyPath]:
    """The files whose name or folder has the split as a word; all files if none names any split.

    `squad_train.jsonl` and `train/squad.jsonl` belong to train, `testimonials.jsonl` to no split. A file's name counts
    more than its folders, an inner folder more than an outer one.

    Args:
        where: the folder or data set, for error messages.
        files: paths relative to it.
        split: name of the split, or of a part of one such as `train_sft`.

    Raises:
        InputError: all named files belong to other splits, or the name of one has the split and another one. Guessing
            could train on a test split.
    """
    wanted = _words(split)
    found = [file for file in files if _has_words(file, wanted)] if wanted else []
    if not found and split in SPLIT_OF_WORD:  # another word for the same split, such as dev for validation
        found = [file for file in files if SPLIT_OF_WORD[split] in splits_of_file(file)]
    for file in found:
        if len(both := splits_of_file(file)) > 1:
            raise InputError(f"{where}: the name of {file} has the splits {' and '.join(both)}; rename it")
    others = list(dict.fromkeys(one for file in files for one in splits_of_file(file)))
    if not found and files and (others or split != "train"):
        named = f"there are files of {', '.join(sorted(others, key=list(SPLITS).index))}; set the source's split"
        raise InputError(
            f"{where}: no file is named after the split {split!r}; "
            f"{named if others else 'no file is named after any; rename the files, or leave split out to read all'}"
        )
    return found or list(files)


def splits_of_file(file: PurePath) -> list[str]:
    """The splits that a path names: those in the file's name, else those in its innermost folder that names one."""
    for part in reversed(file.parts):
        named = [SPLIT_OF_WORD[word] for word in _words(part) if word in SPLIT_OF_WORD]
        if named:
            return list(dict.fromkeys(named))
    return []


def _has_words(file: PurePath, wanted: list[str]) -> bool:
    """Whether the part of the path that decides about the split has these words, one after the other."""
    for part in reversed(file.parts):
        words = _words(part)
        if any(words[place : place + len(wanted)] == wanted for place in range(len(words))):
            return True
        if any(word in SPLIT_OF_WORD for word in words):
            return False
    return False


def _words(name: str) -> list[str]:
    """Words and numbers of a name, in lower case: `squadTrain-00000.jsonl` has squad, train, 00000 and jsonl."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return re.findall(r"[^\W\d_]+|\d+", spaced.lower())
