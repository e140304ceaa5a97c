"""`gemma4vec matrix FILE`: train many recipes on the same rows and compare them with a control."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemma4vec.errors import Interrupted, WorkError

if TYPE_CHECKING:
    from gemma4vec.pipeline.matrix.plan import Plan

logger = logging.getLogger(__name__)


def matrix_command(
    file: Annotated[Path, typer.Argument(help="Matrix file (YAML), or the name of a shipped one.", metavar="FILE")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder of the matrix; default $GEMMA4VEC_HOME/matrix/NAME.",
            metavar="DIR",
            show_default=False,
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Change a key of the file, such as budget.rows=320.", metavar="KEY=VALUE", show_default=False
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the cells in order; run nothing.")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Run failed cells again.")] = False,
    table_only: Annotated[
        bool, typer.Option("--table", help="Write the table of the finished cells; run nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """Train and evaluate every recipe of a matrix at equal budget, and compare each with a control.

    After an interruption, the same command continues. Finished cells never run again.
    """
    from gemma4vec.cli.output import emit
    from gemma4vec.files import home
    from gemma4vec.recipe.find import find_matrix
    from gemma4vec.recipe.plans.matrix import load_matrix

    file = find_matrix(file)
    matrix = load_matrix(file, overrides or [])
    from gemma4vec.pipeline.matrix.plan import make_plan
    from gemma4vec.pipeline.suites import check_samples

    plan = make_plan(matrix, file.resolve().parent)
    check_samples(matrix.dev, matrix.final)
    folder = out or home() / "matrix" / matrix.name
    if dry_run:
        emit(as_json, _dry(plan, folder), _dry_table)
        return
    logger.info("loading libraries")
    from gemma4vec.cli.matrix.screen import Screen
    from gemma4vec.pipeline.matrix.run import run_matrix

    logger.info(f"matrix folder: {folder}")
    try:
        with Screen() as screen:
            results = run_matrix(plan, folder, screen, retry=retry, table_only=table_only)
    except Interrupted:
        raise
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; the same command continues") from None
    emit(as_json, results, _tables)
    if results["failed"]:
        first = results["failed"][0]
        raise WorkError(
            f"{len(results['failed'])} cells failed; first: {first['cell']}: {first['reason']}; "
            f"table: {folder / 'results.md'}; run failed cells again with --retry"
        )


def _dry(plan: "Plan", folder: Path) -> dict[str, Any]:
    """The plan as JSON values."""
    from gemma4vec.pipeline.matrix.plan import list_expected_cells
    from gemma4vec.pipeline.matrix.state import MatrixFolder

    records = MatrixFolder(folder).records()
    rows = [
        {
            "cell": key,
            "variant": variant,
            "learning_rate": rate,
            "seed": seed,
            "why": why,
            "status": records[key].status if key in records else "waiting",
        }
        for key, variant, rate, seed, why in list_expected_cells(plan, records)
    ]
    matrix = plan.matrix
    return {
        "matrix": matrix.name,
        "folder": str(folder),
        "variants": list(plan.variants),
        "control": sorted(set(plan.controls.values())),
        "rows_per_cell": matrix.budget.rows,
        "rows_of_the_search": matrix.search.rows if plan.searching and matrix.search else None,
        "cells": rows,
        "count": len(rows),
        "dev": [sample.suite for sample in matrix.dev],
        "final": [sample.suite for sample in matrix.final],
    }


def _dry_table(plan: dict[str, Any]) -> Any:
    from rich.console import Group
    from rich.text import Text

    from gemma4vec.cli.output import table

    columns = ["", "variant", "learning rate", "seed", "why", "status"]
    rows = [
        [
            str(n),
            row["variant"],
            "-" if row["learning_rate"] is None else f"{row['learning_rate']:g}",
            str(row["seed"]),
            row["why"],
            row["status"],
        ]
        for n, row in enumerate(plan["cells"], start=1)
    ]
    lines = [
        f"{plan['count']} cells of {plan['rows_per_cell']:,} rows"
        + (f" ({plan['rows_of_the_search']:,} in the search of learning rates)" if plan["rows_of_the_search"] else "")
        + f"; control: {', '.join(plan['control'])}",
        f"dev: {', '.join(plan['dev'])}",
        f"final: {', '.join(plan['final'])}",
        f"folder: {plan['folder']}",
    ]
    return Group(table(columns, rows, plan["matrix"]), Text("\n".join(lines)))


def _tables(results: dict[str, Any]) -> Any:
    from rich.console import Group
    from rich.text import Text

    from gemma4vec.cli.output import table
    from gemma4vec.pipeline.matrix import write as matrix_write

    parts = [
        table(*matrix_write.scores_table(results), title=f"{results['matrix']}: {results['metric']}"),
        table(*matrix_write.difference_table(results), title=f"difference to {results['control']}, all final suites"),
        table(*matrix_write.cost_table(results), title="cost per run"),
        table(*matrix_write.grid_table(results), title="dev score by learning rate"),
    ]
    lines = [f"note: {note}" for note in results["notes"]]
    for key, word in (("failed", "failed"), ("stopped", "stopped by the stop rule"), ("not_run", "not run")):
        lines += [f"{word}: {one['cell']}: {one['reason']}" for one in results[key]]
    lines.append(f"tables: {results['folder']}/results.md, results.csv, results.json")
    return Group(*parts, Text("\n".join(lines)))
