"""`gemma4vec pipeline PLAN`: runs that build on each other, with soups and quantization, from one file."""

import logging
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemma4vec.errors import InputError, Interrupted

if TYPE_CHECKING:
    from gemma4vec.pipeline.plan.jobs import Outline

logger = logging.getLogger(__name__)


def plan_command(
    file: Annotated[Path, typer.Argument(help="Plan (YAML), or the name of a shipped one.", metavar="PLAN")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder of the plan; default $GEMMA4VEC_HOME/plans/NAME.",
            metavar="DIR",
            show_default=False,
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Change a key of the file, such as budget.minutes=30.",
            metavar="KEY=VALUE",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and estimate every step; load no weights, run nothing.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a plan that has begun.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """Train, average and quantize models that build on each other, and write one page about all of them.

    After an interruption, the same command with --resume goes on. Finished steps are never done again.
    """
    if dry_run and resume:
        raise InputError("--dry-run runs nothing, so there is nothing to resume; give one of them")
    from gemma4vec.cli.output import emit
    from gemma4vec.files import home
    from gemma4vec.recipe.find import find_plan
    from gemma4vec.recipe.plans.plan import load_plan

    found = find_plan(file)
    plan = load_plan(found, overrides or [])
    from gemma4vec.pipeline.plan.jobs import make_outline
    from gemma4vec.pipeline.plan.plan_state import PlanFolder
    from gemma4vec.pipeline.suites import check_samples

    outline = make_outline(plan, found.resolve().parent)
    check_samples(plan.suites.dev, plan.suites.final)
    folder = out or home() / "plans" / plan.name
    records = PlanFolder(folder).records()
    if dry_run:
        from gemma4vec.pipeline.plan.dry_run import estimate_plan

        emit(as_json, estimate_plan(outline, records) | {"folder": str(folder)}, _dry_table)
        return
    command = _command(file, out, overrides or [])
    if records and not resume:
        done = sum(record.status == "done" for record in records.values())
        raise InputError(
            f"the plan has begun in {folder} ({done} of {len(outline.jobs)} models made); go on with: {command}, or "
            "use another --out"
        )
    _run(outline, folder, command, as_json)


def _run(outline: "Outline", folder: Path, command: str, as_json: bool) -> None:
    from gemma4vec.cli.output import emit

    logger.info("loading libraries")
    from gemma4vec.pipeline.plan.run_plan import run_plan

    logger.info(f"plan folder: {folder}")
    try:
        results = run_plan(outline, folder, command=command)
    except Interrupted:
        raise
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped; go on with: {command}") from None
    emit(as_json, results, _tables)


def _command(file: Path, out: Path | None, overrides: list[str]) -> str:
    words = ["gemma4vec", "pipeline", str(file), *(["--out", str(out)] if out is not None else [])]
    for override in overrides:
        words += ["--set", override]
    return shlex.join([*words, "--resume"])


def _dry_table(found: dict[str, Any]) -> Any:
    from rich.console import Group
    from rich.text import Text

    from gemma4vec.cli.output import table

    columns = ["step", "from", "trainable", "memory GB", "minutes", "disk GB", "status"]
    rows = [
        [
            row["key"],
            ", ".join(row["from"][:2]) + (f" and {len(row['from']) - 2} more" if len(row["from"]) > 2 else ""),
            f"{row['trainable'] / 1e6:.1f} M" if row["trainable"] else "-",
            f"{row['peak_memory_gb']:.1f}",
            "-" if row["minutes"] is None else f"{row['minutes']:.1f}",
            f"{row['disk_gb']:.1f}",
            row["status"],
        ]
        for row in found["jobs"]
    ]
    budget = found["budget"]
    time = (
        f"{found['minutes']:.0f} minutes of training, by the recipes' own budgets; evaluation comes on top"
        if budget is None
        else f"{budget:g} minutes in all; loading and evaluation are taken from the minutes of training"
    )
    lines = [
        time,
        f"memory: {found['peak_memory_gb']:.1f} GB at the peak; disk: {found['disk_gb']:.1f} GB",
        f"dev: {', '.join(found['dev'])}",
        f"final: {', '.join(found['final']) or 'none'} (for {', '.join(found['results'])})",
        f"folder: {found['folder']}",
    ]
    return Group(table(columns, rows, f"dry run of {found['plan']}"), Text("\n".join(lines)))


def _tables(results: dict[str, Any]) -> Any:
    """One screen: means alone, and the differences that count most; the page has the rest."""
    from rich.console import Group
    from rich.text import Text

    from gemma4vec.cli.output import table
    from gemma4vec.pipeline.plan import write_plan
    from gemma4vec.pipeline.plan.results import describe_losses

    def mean(part: dict[str, Any] | None) -> float | None:
        return None if part is None else part["mean"]

    has_final = any(one["role"] == "final" for one in results["differences"])
    role = "final" if has_final else "dev"
    rows: list[list[object]] = [[row["key"], "-", None, mean(row["dev"])] for row in results["references"]]
    for row in results["steps"]:
        name = row["key"] + (" (not kept)" if row["kept"] is False else "")
        parents = ", ".join(row["parents"][:2]) + (" ..." if len(row["parents"]) > 2 else "")
        rows.append([name, parents or "the base", f"{row['minutes']:.1f}", mean(row["dev"])])
    if has_final:
        scored = [*results["references"], *results["steps"]]
        rows = [[*row, mean(one["final"])] for row, one in zip(rows, scored, strict=True)]
    columns = ["step", "from", "minutes", "dev", *(["final"] if has_final else [])]
    differences = [
        [one["name"], f"{one['mean']:+.4f}", f"{one['low']:+.3f} to {one['high']:+.3f}", one["verdict"]]
        for one in results["differences"]
        if one["role"] == role
    ]
    parts = [
        table(columns, rows, title=f"{results['plan']}: {results['metric']}"),
        table([f"difference on {role}", "value", "95% interval", "verdict"], differences),
    ]
    if results["lengths"]:
        lengths = write_plan.list_lengths(results)
        cells = [
            [row["key"], *(mean(row["lengths"].get(str(length))) for length in lengths)] for row in results["lengths"]
        ]
        parts.append(table(["dev by vector length", *map(str, lengths)], cells))
    marks = write_plan.list_marks(results)
    lines = [f"note: {note}" for note in results["choices"]]
    decoders = [row for row in results["steps"] if row["held_out"]]
    lines += [f"{row['key']}: {describe_losses(row['held_out'])}" for row in decoders]
    if marks:
        lines.append(f"note: {len(marks)} marks of scores are on the page; the first: {marks[0]}")
    budget = "" if results["budget"] is None else f" of {results['budget']:g}"
    lines.append(f"{results['minutes']:.1f}{budget} minutes in all")
    lines.append(f"page: {results['folder']}/results.html (also results.md, results.json)")
    return Group(*parts, Text("\n".join(lines)))
