"""`gemma4vec quickstart`: train, evaluate and index a code-search model in one command."""

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
    base: Annotated[str | None, typer.Option("--base", help="Base model; default bundled:gemma-3-270m.")] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--folder",
            help="Folder with your own code; default: the packages of this Python environment.",
            metavar="DIR",
        ),
    ] = None,
    queries: Annotated[int, typer.Option("--queries", help="Largest number of test queries.", min=1)] = 1000,
    documents: Annotated[int, typer.Option("--documents", help="Largest number of test documents.", min=1)] = 1500,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Change a key of the recipe, such as seed=1.", metavar="KEY=VALUE")
    ] = None,
    resume: Annotated[
        str | None, typer.Option("--resume", help="Continue this run (folder, id or latest).", metavar="RUN")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Parent of the run folder; default $GEMMA4VEC_HOME.", metavar="DIR")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of the model and the data order.", min=0)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """Train a code-search model on this machine's Python code and test it against BM25 and the untrained base."""
    from gemma4vec.cli.output import emit
    from gemma4vec.files import home
    from gemma4vec.ledger.run_folder import find_run

    if folder is not None and not folder.is_dir():
        raise InputError(f"--folder {folder}: no such folder")
    if resume is not None:
        if any(value is not None for value in (minutes, base, folder, overrides, seed)):
            raise InputError("--resume continues with the run's own recipe; leave out the other options")
        run = find_run(resume, out or home())
    logger.info("loading libraries")
    from gemma4vec.pipeline.quickstart import Size, go_on_quickstart, quickstart_recipe, start_quickstart

    size = Size(queries, documents)
    if resume is None:
        recipe = quickstart_recipe(_changes(minutes, base, folder, seed, overrides or []))
        summary = start_quickstart(recipe, size, out)
    else:
        summary = go_on_quickstart(run, size)
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
    # JSON is valid YAML and quotes values such as the folder name "my code #1".
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
