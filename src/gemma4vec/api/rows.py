"""Training data as people hand it over: files, recipes, runs, or rows in memory."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from gemma4vec.api.runs import Run
from gemma4vec.data.loading.resolve_names import resolve_sources
from gemma4vec.errors import InputError
from gemma4vec.files import temporary_folder
from gemma4vec.recipe.load import dump_recipe, load_recipe
from gemma4vec.recipe.schema import Recipe, Source

Rows = (
    str
    | Path
    | Recipe
    | Run
    | Mapping[str, object]
    | Sequence[str | Path | Recipe | Run]
    | Sequence[Mapping[str, object]]
)
"""Files of rows, recipes (file, object or mapping), runs, `pycode`, `debian`; several of these; or rows in memory."""


@contextlib.contextmanager
def sources_of(rows: Rows) -> Iterator[list[Source]]:
    """The sources that `rows` mean; rows in memory are a file as long as the block runs, and are read as any file.

    Raises:
        InputError: there is no such file, a recipe that cannot be read, a row that is no JSON object.
    """
    if isinstance(rows, str | Path | Recipe | Run | Mapping):
        listed: list[str | Path | Recipe | Run | Mapping[str, object]] = [rows]
    else:
        listed = list(rows)
    if not listed:
        raise InputError("no rows are given; name a file, or give rows such as {'query': ..., 'pos': [...]}")
    with temporary_folder("rows") as folder:
        memory = [one for one in listed if isinstance(one, Mapping) and "stages" not in one]
        if memory:
            if len(memory) < len(listed):
                raise InputError("give rows in memory alone, or write them into a file first")
            file = Path(folder) / "rows.jsonl"
            file.write_text("".join(map(_line, memory, range(len(memory)))), encoding="utf-8")
            specs = [str(file)]
        else:
            specs = [_spec(one, Path(folder) / f"recipe-{place}.yaml") for place, one in enumerate(listed)]
        try:
            yield resolve_sources(specs)
        except InputError as error:
            if not memory:
                raise
            # Nobody knows the file: it is gone when the message is read.
            raise InputError(str(error).replace(str(Path(folder) / "rows.jsonl"), "rows")) from error


def _spec(one: str | Path | Recipe | Run | Mapping[str, object], file: Path) -> str:
    """What a person would type for it."""
    if isinstance(one, Run):
        return str(one.folder)
    if isinstance(one, str | Path):
        return str(one)
    if not isinstance(one, Recipe | Mapping):
        raise InputError(f"{type(one).__name__} is no training data; give a file, a recipe, a run, or rows")
    file.write_text(dump_recipe(load_recipe(one)), encoding="utf-8")
    return str(file)


def _line(row: Mapping[str, object], place: int) -> str:
    try:
        return json.dumps(dict(row)) + "\n"
    except (TypeError, ValueError) as error:
        raise InputError(f"row {place}: {error}; rows are JSON objects of strings, lists and numbers") from error
