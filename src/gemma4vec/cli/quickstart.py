"""`gemma4vec quickstart`: from nothing to a trained, evaluated, searchable model."""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemma4vec.errors import InputError

if TYPE_CHECKING:
    from rich.console import RenderableType

logger = logging.getLogger(__name__)


def quickstart_command(
    minutes: Annotated[float | None, typer.Option("--minutes", help="Minutes of training.", min=0.05)] = None,
    base: Annotated[str | None, typer.Option("--base", help="Base model, instead of bundled:gemma-3-270m.")] = None,
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Your own code, instead of that of this environment.", metavar="DIR")
    ] = None,
    queries: Annotated[int, typer.Option("--queries", help="Most test queries.", min=1)] = 1000,
    documents: Annotated[int, typer.Option("--documents", help="Most test documents.", min=1)] = 1500,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="A change to the recipe, such as seed=1.", metavar="KEY=VALUE")
    ] = None,
    resume: Annotated[
        str | None, typer.Option("--resume", help="Go on with this run (folder, id or latest).", metavar="RUN")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the run folder; default $GEMMA4VEC_HOME.", metavar="DIR")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of model and data order.", min=0)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable result on stdout.")] = False,
) -> None:
    """Train a code-search model on the Python code of this machine, and say with statistics how good it is."""
    from gemma4vec.cli.output import emit
    from gemma4vec.files import home
    from gemma4vec.ledger.run_folder import find_run

    if folder is not None and not folder.is_dir():
        raise InputError(f"--folder {folder}: no such folder")
    if resume is not None:
        if any(value is not None for value in (minutes, base, folder, overrides, seed)):
            raise InputError("--resume goes on with the recipe as it was; leave out the other options")
        run = find_run(resume, out or home())
    logger.info("loading libraries")
    from gemma4vec.pipeline.quickstart import Size, quickstart_recipe, run_quickstart
    from gemma4vec.training.run import start_run

    recipe = None
    if resume is None:
        recipe = quickstart_recipe(_changes(minutes, base, folder, seed, overrides or []))
        run = start_run(recipe, out)
    logger.info(f"run folder: {run.path}")
    try:
        summary = run_quickstart(run, Size(queries, documents), recipe)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped; go on with: gemma4vec quickstart --resume {run.path}") from None
    emit(as_json, summary, _table)


def _changes(
    minutes: float | None, base: str | None, folder: Path | None, seed: int | None, overrides: list[str]
) -> list[str]:
    named = {
        "stages.0.budget.minutes": minutes,
        "model.base": base,
        "stages.0.data.0.path": str(folder.resolve()) if folder else None,
        "seed": seed,
    }
    # As JSON, which is YAML too: a folder may be called "my code #1".
    given = {key: json.dumps(value, ensure_ascii=False) for key, value in named.items() if value is not None}
    return [f"{key}={value}" for key, value in given.items()] + overrides


def _table(summary: dict[str, Any]) -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    from gemma4vec.cli.output import table

    rows = [
        [
            row["model"],
            row["ndcg@10"],
            f"{row['low']:.4f} to {row['high']:.4f}",
            row["recall@100"],
            row["mrr@10"],
            row["map"],
        ]
        for row in summary["models"]
    ]
    title = f"{summary['suite']}: {summary['queries']:,} queries, {summary['documents']:,} functions"
    lines = [
        summary["sentence"],
        "",
        f"report: {summary['report']}",
        f"model:  {summary['model']}",
        f'search: gemma4vec search {summary["run"]} "read a file line by line"',
    ]
    columns = ["model", "nDCG@10", "95% interval", "Recall@100", "MRR@10", "MAP"]
    return Group(table(columns, rows, title), Text("\n".join(lines)))
