"""Texts to attack, from files of plain texts or of rows."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gemma4vec.data.loading.load_rows import read_source
from gemma4vec.errors import InputError
from gemma4vec.recipe.sources import source_of


def read_texts(files: Sequence[Path], most: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """The texts of files, at most `most` of them at random, and the name of each one's source: its file's.

    A `.txt` file has a text a line; `.jsonl` (`.gz`, `.zst`) has rows, whose queries are taken.

    Raises:
        InputError: a file of another kind, two of one name, or one that cannot be read.
    """
    texts: list[str] = []
    sources: list[str] = []
    names = [file.name.split(".")[0] for file in files]
    for file, name in zip(files, names, strict=True):
        if names.count(name) > 1:
            raise InputError(f"--texts {file}: two files are called {name!r}; rename one, figures are by source")
        kind = next((kind for suffix, kind in ((".txt", "text"), (".jsonl", "jsonl")) if suffix in file.suffixes), None)
        if kind is None:
            raise InputError(f"--texts {file}: expected .txt (a text a line) or .jsonl (rows)")
        found = [str(row.query) for row in read_source(source_of(source=kind, name="texts", path=str(file))).rows]
        texts += found
        sources += [name] * len(found)
    if len(texts) <= most:
        return texts, sources
    chosen = sorted(np.random.default_rng(seed).permutation(len(texts))[:most].tolist())
    return [texts[n] for n in chosen], [sources[n] for n in chosen]
