"""`gemma4vec data`: make training data and suites."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemma4vec.cli.data.check import check_command
from gemma4vec.cli.data.mine import mine_command
from gemma4vec.cli.data.read import read_command
from gemma4vec.cli.data.stats import stats_command

if TYPE_CHECKING:
    from rich.table import Table

logger = logging.getLogger(__name__)

app = typer.Typer(help="Make and inspect data: pairs, suites, hard negatives.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Make data from what is on this machine."""


app.command("read")(read_command)
app.command("check")(check_command)
app.command("mine")(mine_command)
app.command("stats")(stats_command)


@app.command("pycode")
def pycode_command(
    folder: Annotated[
        Path | None,
        typer.Argument(
            help="Code to read, such as a repository; by default the Python environment.", show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write; by default below HOME/data, reused while the code is the same."),
    ] = None,
    held_out: Annotated[
        list[str] | None,
        typer.Option("--held-out", help="A package to test on, never trained on; repeat for several."),
    ] = None,
    negatives: Annotated[int, typer.Option(min=0, help="Hard negatives per training row.")] = 4,
    as_json: Annotated[bool, typer.Option("--json", help="The manifest as JSON on stdout.")] = False,
) -> None:
    """Pairs of docstring sentence and function from Python code, with a test that shares no package with training."""
    from gemma4vec.cli.output import emit
    from gemma4vec.data.pycode.build import build_pycode, load_or_build_pycode

    if out is None:
        made = load_or_build_pycode(folder=folder, held_out=held_out, negatives=negatives)
    else:
        made = build_pycode(out, folder=folder, held_out=held_out, negatives=negatives)
    emit(as_json, {"path": str(made.path), **made.manifest}, _table)
    held = made.manifest["split"]["test"]
    shown = ", ".join(held[:5]) + (f" and {len(held) - 5} more" if len(held) > 5 else "")
    logger.info(f"{made.path}: tested on {made.manifest['split']['unit']}s never trained on: {shown}")
    for warning in made.manifest["warnings"]:
        logger.warning(f"warning: {warning}")


def _table(manifest: dict[str, Any]) -> "Table":
    from gemma4vec.cli.output import table

    counts = manifest["counts"]
    rows = [
        ("Python files", counts["files"]),
        ("functions", counts["functions"]),
        ("kept, without near-duplicates", counts["kept_functions"]),
        ("pairs", counts["pairs"]),
        ("training rows", counts["train_rows"]),
        ("dev suite: documents", counts["dev_documents"]),
        ("dev suite: queries", counts["dev_queries"]),
        ("test suite: documents", counts["test_documents"]),
        ("test suite: queries", counts["test_queries"]),
    ]
    return table(("", "count"), rows)
