"""Training sources and suites from what a person types: files, recipes, runs, folders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from gemma4vec.data.loading.load_rows import PlainTexts, load_sources
from gemma4vec.data.loading.open_suite import open_suite
from gemma4vec.data.rows.rows import Row
from gemma4vec.data.sources.splits import kind_of_file
from gemma4vec.data.suites.texts import SuiteTexts
from gemma4vec.errors import InputError
from gemma4vec.ledger.run_folder import MANIFEST, RECIPE, RunFolder
from gemma4vec.ledger.run_recipe import read_recipe
from gemma4vec.reading.names import as_name
from gemma4vec.recipe.load import load_recipe
from gemma4vec.recipe.schema import Recipe, Source
from gemma4vec.recipe.sources import BuiltSource, DebianSource, PycodeSource, source_of
from gemma4vec.text.pretokenized import PretokenizedText

RECIPES = (".yaml", ".yml")


def resolve_sources(specs: Sequence[str]) -> list[Source]:
    """The training sources that `specs` mean, each with a unique name.

    Each is a file or folder of rows, a recipe (all sources of all its stages), a run folder, or one of the words
    `pycode`, `debian` and `debian:LANGUAGE`.

    Raises:
        InputError: there is no such file, or a recipe cannot be read.
    """
    return _renamed([source for spec in specs for source in _sources(spec)])


def load_source(source: Source) -> tuple[Sequence[Row], dict[str, Any]]:
    """The rows of one source (a plain text is a row without a positive), and its facts as in a manifest.

    Raises:
        InputError: the source cannot be read, has no row, or has token ids instead of texts.
    """
    loaded = load_sources([source.model_copy(update={"weight": None})])
    rows = loaded.rows if len(loaded.rows) else cast(PlainTexts, loaded.texts).rows
    if isinstance(rows[0].query, PretokenizedText) or (
        rows[0].pos and isinstance(rows[0].pos[0].text, PretokenizedText)
    ):
        raise InputError(f"{source.name}: its texts are token ids; use a source of plain text here")
    return rows, loaded.sources[source.name]


def sources_of_run(run: RunFolder) -> list[Source]:
    """The sources that a run was trained on. For pycode and documents, the rows that the run built.

    Raises:
        InputError: the run's recipe or manifest is damaged.
    """
    made = {name: recorded for stage in (run.manifest.get("data") or {}).values() for name, recorded in stage.items()}
    sources = _sources_of_recipe(read_recipe(run))
    return [
        source.built_rows(made[source.name]["path"])
        if isinstance(source, BuiltSource) and source.name in made
        else source
        for source in sources
    ]


def resolve_suites(specs: Sequence[str]) -> list[SuiteTexts]:
    """The texts of the suites that `specs` mean: arguments of `open_suite`, or folders of suites.

    Raises:
        InputError: a folder has no suite, a suite cannot be read, or two suites have one name.
    """
    opened = [open_suite(inside) for spec in specs for inside in _suites_in(spec)]
    suites = [one.texts() for suite in opened for one in suite.members]
    names = [suite.name for suite in suites]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two suites are named '{name}'; rename one folder or set 'name' in its suite.yaml")
    return suites


def _sources(spec: str) -> list[Source]:
    path = Path(spec).expanduser()
    word, _, language = spec.partition(":")
    if word in ("pycode", "debian") and not path.exists():
        name = spec.replace(":", "-")
        return [PycodeSource(name=name) if word == "pycode" else DebianSource(name=name, language=language or "en")]
    if path.is_dir() and (path / MANIFEST).is_file() and (path / RECIPE).is_file():
        return sources_of_run(RunFolder.open(path))
    if path.suffix in RECIPES:
        return _sources_of_recipe(load_recipe(path))
    if not path.exists():
        raise InputError(f"{spec}: no such file; name a file of rows, a recipe (.yaml) or a run folder")
    name = as_name(path.name.split(".")[0] or path.resolve().name)
    return [source_of(name=name, source=_kind(path), path=str(path))]


def _kind(path: Path) -> str:
    """The kind of source for a file or folder, from its name and contents."""
    if path.is_dir():
        return "beir" if (path / "qrels").is_dir() else "datasets"
    return kind_of_file(path.name) or "jsonl"


def _sources_of_recipe(recipe: Recipe) -> list[Source]:
    """The sources of all stages, without duplicates."""
    found = [source for stage in recipe.stages for source in stage.data]
    return [source for place, source in enumerate(found) if source not in found[:place]]


def _renamed(sources: list[Source]) -> list[Source]:
    """The same sources with unique names: a repeated name gets a number."""
    used: set[str] = set()
    renamed = []
    for source in sources:
        name, number = source.name, 1
        while name in used:
            number += 1
            name = f"{source.name}-{number}"
        used.add(name)
        renamed.append(source if name == source.name else source.model_copy(update={"name": name}))
    return renamed


def _suites_in(spec: str) -> list[str]:
    """`spec` itself, or the folders in BEIR's layout inside it."""
    folder = Path(spec).expanduser()
    if not folder.is_dir() or (folder / "suite.yaml").is_file() or _is_suite(folder):
        return [spec]
    inside = sorted(one for one in folder.iterdir() if one.is_dir() and _is_suite(one))
    return [str(one) for one in inside] or [spec]


def _is_suite(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("corpus.jsonl", "corpus.jsonl.gz"))
