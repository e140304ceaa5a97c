"""`gemma4vec data read`: read a recipe's sources, or a single source; show and convert their rows."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from gemma4vec.errors import InputError
from gemma4vec.files import check_writable, refuse_overwriting

if TYPE_CHECKING:
    from rich.table import Table

    from gemma4vec.recipe.schema import Mixture, Source

logger = logging.getLogger(__name__)


def read_command(
    recipe: Annotated[
        str | None,
        typer.Argument(help="Recipe (file or name) whose data to read; or use --source.", show_default=False),
    ] = None,
    stage: Annotated[int, typer.Option(min=0, help="Stage of the recipe, counted from 0.")] = 0,
    source: Annotated[
        str | None,
        typer.Option(help="Kind of the single source: jsonl, parquet, csv, debian, ... (docs/guides/data.md)."),
    ] = None,
    path: Annotated[str | None, typer.Option(help="File, folder or hub id of the single source.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a key of the recipe or of the single source, such as language=de."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Write all rows as JSONL (compressed if the name ends in .gz), plain texts one a line."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """Read data as training does: validate it, count rows, show the first, and fill the cache."""
    from gemma4vec.cli.output import emit
    from gemma4vec.data.loading.load_rows import load_sources

    sources, mixture = _sources(recipe, stage, source, path, overrides or [])
    if out is not None:
        refuse_overwriting([out], [recipe, *(place for one in sources for place in (one.path, one.drop, one.repeat))])
        check_writable(out.parent)
    loaded = load_sources(sources, mixture)
    shares = {part.name: part.share for part in getattr(loaded.rows, "parts", ())}
    found: dict[str, Any] = {
        "rows": len(loaded.rows),
        "texts": len(loaded.texts),
        "sources": [{"name": name, **facts, "share": shares.get(name)} for name, facts in loaded.sources.items()],
        "first": _first(loaded),
    }
    if out is not None:
        _write(loaded, out)
        found["written"] = str(out)
        logger.info(f"written: {out}")
    emit(as_json, found, _table)
    if not as_json:
        for name, text in found["first"].items():
            logger.info(f"{name}: {text if len(text) <= 200 else text[:200] + ' ...'}")


def _sources(
    recipe: str | None, stage: int, kind: str | None, path: str | None, overrides: list[str]
) -> "tuple[tuple[Source, ...], Mixture]":
    from gemma4vec.recipe.load import load_recipe, parse_source
    from gemma4vec.recipe.schema import Mixture

    if (recipe is None) == (kind is None):
        raise InputError("give exactly one of RECIPE or --source KIND (with --path)")
    if recipe is not None:
        stages = load_recipe(recipe, overrides).stages
        if stage >= len(stages):
            raise InputError(f"--stage {stage}: {recipe} has {len(stages)} stages, counted from 0")
        return stages[stage].data, stages[stage].mixture
    tree = {"name": kind, "source": kind} | ({"path": path} if path else {})
    text = yaml.safe_dump(tree)
    return (parse_source(text, "--source", overrides),), Mixture()


def _first(loaded: Any) -> dict[str, str]:
    """The fields of the first row, or the first plain text."""
    if not len(loaded.rows):
        return {"text": loaded.texts[0]}
    row = loaded.rows[0]
    fields = {"query": row.query, "pos": row.pos[0].text, "title": row.pos[0].title}
    return {name: text for name, text in (fields | {"neg": row.neg[0].text if row.neg else None}).items() if text}


def _write(loaded: Any, out: Path) -> None:
    from gemma4vec.data.rows.rows import write_rows
    from gemma4vec.files import atomic_write

    if len(loaded.rows):
        write_rows(out, loaded.rows)
        return
    with atomic_write(out) as stream:
        stream.writelines(" ".join(text.split()) + "\n" for text in loaded.texts)


def _table(found: dict[str, Any]) -> "Table":
    from gemma4vec.cli.output import table

    total = found["rows"]
    rows = [
        (
            one["name"],
            one["source"],
            one["rows"],
            one["bad_rows"],
            "-" if not total else f"{one['share'] if one['share'] is not None else one['rows'] / total:.1%}",
            one["content_hash"][:12],
        )
        for one in found["sources"]
    ]
    return table(("source", "kind", "rows", "bad", "share of training", "contents"), rows)
