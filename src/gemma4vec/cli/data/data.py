"""`gemma4vec data`: build, inspect and clean training data and suites."""

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

app = typer.Typer(help="Build, inspect and clean data: pairs, suites, hard negatives.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Build, inspect and clean data."""


app.command("read")(read_command)
app.command("check")(check_command)
app.command("mine")(mine_command)
app.command("stats")(stats_command)


@app.command("pycode")
def pycode_command(
    folder: Annotated[
        Path | None,
        typer.Argument(
            help="Folder with Python code, such as a repository; default: the packages of this Python environment.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Output folder; default: below HOME/data, reused until the code changes."),
    ] = None,
    held_out: Annotated[
        list[str] | None,
        typer.Option("--held-out", help="Package for the test suite, excluded from training; repeatable."),
    ] = None,
    negatives: Annotated[int, typer.Option(min=0, help="Number of hard negatives per training row.")] = 4,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON on stdout.")] = False,
) -> None:
    """Build pairs of docstring sentence and function, and a test suite of packages that training never sees."""
    from gemma4vec.cli.output import emit
    from gemma4vec.data.pycode.build import build_pycode, load_or_build_pycode

    if out is None:
        made = load_or_build_pycode(folder=folder, held_out=held_out, negatives=negatives)
    else:
        made = build_pycode(out, folder=folder, held_out=held_out, negatives=negatives)
    emit(as_json, {"path": str(made.path), **made.manifest}, _table)
    held = made.manifest["split"]["test"]
    shown = ", ".join(held[:5]) + (f" and {len(held) - 5} more" if len(held) > 5 else "")
    logger.info(f"{made.path}: {made.manifest['split']['unit']}s held out for the test: {shown}")
    for warning in made.manifest["warnings"]:
        logger.warning(f"warning: {warning}")


@app.command("documents")
def documents_command(
    folder: Annotated[
        Path, typer.Argument(help="Folder of Markdown, HTML, reStructuredText, text, notebooks, PDF, code.")
    ],
    queries: Annotated[
        Path | None,
        typer.Option(
            "--queries", help="Your queries, a TSV file of query and path or path#heading.", show_default=False
        ),
    ] = None,
    negatives: Annotated[int, typer.Option(min=0, help="Number of hard negatives per training row.")] = 4,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON on stdout.")] = False,
) -> None:
    """Build pairs from a folder of documents without labels, and a test of your queries or of held-out documents."""
    from gemma4vec.cli.output import emit
    from gemma4vec.data.documents.build_documents import load_or_build_documents
    from gemma4vec.data.documents.document_rows import Settings

    made = load_or_build_documents(folder, Settings(queries, negatives=negatives))
    emit(as_json, {"path": str(made.path), **made.manifest}, _documents_table)
    for warning in made.warnings:
        logger.warning(f"warning: {warning}")
    logger.info(f"{made.path}: the test is of {made.manifest['test']}")


def _documents_table(manifest: dict[str, Any]) -> "Table":
    from gemma4vec.cli.output import table

    counts = manifest["counts"]
    rows = [
        *((f"files: {kind}", number) for kind, number in counts["files"].items()),
        ("sections and parts of long ones", counts["sections"]),
        ("near-duplicates among them", counts["near_duplicates"]),
        *((f"training rows: {kind}", number) for kind, number in counts["train_rows_by_kind"].items()),
        ("test: sections", counts["test_documents"]),
        ("test: queries", counts["test_queries"]),
    ]
    return table(("", "count"), rows)


def _table(manifest: dict[str, Any]) -> "Table":
    from gemma4vec.cli.output import table

    counts = manifest["counts"]
    rows = [
        ("Python files", counts["files"]),
        ("functions", counts["functions"]),
        ("functions without near-duplicates", counts["kept_functions"]),
        ("pairs", counts["pairs"]),
        ("training rows", counts["train_rows"]),
        ("dev suite: documents", counts["dev_documents"]),
        ("dev suite: queries", counts["dev_queries"]),
        ("test suite: documents", counts["test_documents"]),
        ("test suite: queries", counts["test_queries"]),
    ]
    return table(("", "count"), rows)
