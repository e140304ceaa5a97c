"""From what a person types to training sources and suites: files, recipes, runs, folders."""

from collections.abc import Sequence
from pathlib import Path

from gemma4vec.data.suites import RetrievalSuite, load_suite
from gemma4vec.errors import InputError
from gemma4vec.ledger.runs import MANIFEST, RECIPE, RunFolder
from gemma4vec.recipe.load import load_recipe, parse_recipe
from gemma4vec.recipe.schema import Recipe, Source

RECIPES = (".yaml", ".yml")


def sources_named(specs: Sequence[str]) -> list[Source]:
    """The sources of rows that `specs` mean, each with its own name.

    Each is a file of rows, a recipe (all sources of rows of all its stages), a run folder, or the word `pycode`.

    Raises:
        InputError: there is no such file, or a recipe that cannot be read or has no rows.
    """
    sources = [source for spec in specs for source in _sources(spec)]
    if not sources:
        raise InputError(f"{', '.join(specs)}: no source of rows; name files of rows, a recipe that has some, or a run")
    return _renamed(sources)


def sources_of_run(run: RunFolder) -> list[Source]:
    """The sources of rows that a run was trained on; code is read as the rows that were made of it then.

    Raises:
        InputError: the run's recipe or manifest is damaged.
    """
    made = {name: told for stage in (run.manifest.get("data") or {}).values() for name, told in stage.items()}
    sources = _sources_of_recipe(parse_recipe(run.recipe_text, str(run.path / RECIPE)))
    return [
        Source(name=source.name, source="jsonl", path=made[source.name]["path"], max_rows=source.max_rows)
        if source.source == "pycode" and source.name in made
        else source
        for source in sources
    ]


def suites_named(specs: Sequence[Path]) -> list[RetrievalSuite]:
    """The suites that `specs` mean: each a suite's folder, or a folder with suites in it.

    Raises:
        InputError: a folder without a suite, a suite that cannot be read, two suites of one name.
    """
    suites = [load_suite(folder) for spec in specs for folder in _suite_folders(spec)]
    names = [suite.name for suite in suites]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two suites are named '{name}'; rename one folder or set 'name' in its suite.yaml")
    return suites


def _sources(spec: str) -> list[Source]:
    path = Path(spec).expanduser()
    if spec == "pycode" and not path.exists():
        return [Source(name="pycode", source="pycode")]
    if path.is_dir() and (path / MANIFEST).is_file() and (path / RECIPE).is_file():
        return sources_of_run(RunFolder.open(path))
    if path.suffix in RECIPES:
        return _sources_of_recipe(load_recipe(path))
    if not path.exists():
        raise InputError(f"{spec}: no such file; name a file of rows, a recipe (.yaml) or a run folder")
    return [Source(name=path.name.split(".")[0] or path.name, source="jsonl", path=str(path))]


def _sources_of_recipe(recipe: Recipe) -> list[Source]:
    """Each source of rows of all stages, once."""
    found = [source for stage in recipe.stages for source in stage.data if source.source != "text"]
    return [source for place, source in enumerate(found) if source not in found[:place]]


def _renamed(sources: list[Source]) -> list[Source]:
    """The same sources; of those of one name all but the first get a number."""
    taken: set[str] = set()
    renamed = []
    for source in sources:
        name, number = source.name, 1
        while name in taken:
            number += 1
            name = f"{source.name}-{number}"
        taken.add(name)
        renamed.append(source if name == source.name else source.model_copy(update={"name": name}))
    return renamed


def _suite_folders(spec: Path) -> list[Path]:
    """`spec` itself, or the suites that stand in it side by side."""
    if _is_suite(spec) or not spec.is_dir():
        return [spec]
    inside = sorted(folder for folder in spec.iterdir() if folder.is_dir() and _is_suite(folder))
    return inside or [spec]


def _is_suite(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("corpus.jsonl", "corpus.jsonl.gz"))
