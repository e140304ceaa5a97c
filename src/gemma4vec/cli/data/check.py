"""`gemma4vec data check TRAIN... --against SUITE`: is what we test on in what we train on?"""

from pathlib import Path
from typing import Annotated, Any

import typer


def check_command(
    train: Annotated[
        list[str],
        typer.Argument(metavar="TRAIN...", help="Files of rows, a recipe (.yaml), a run folder, pycode or debian."),
    ],
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against",
            metavar="SUITE",
            help="Whatever eval --suite takes, or a folder of suites; repeat for several.",
            show_default=False,
        ),
    ] = None,
    near: Annotated[
        float, typer.Option("--near", help="Least Jaccard similarity of a near-duplicate, 0.5 to 1.")
    ] = 0.7,
    language: Annotated[
        list[str] | None,
        typer.Option(
            "--language", help="Code of a right language (en, de); rows in others are faults.", show_default=False
        ),
    ] = None,
    drop: Annotated[
        Path | None,
        typer.Option("--drop", metavar="FILE", help="Write what to leave out, as JSONL.", show_default=False),
    ] = None,
    clean: Annotated[
        Path | None,
        typer.Option(
            "--clean", metavar="DIR", help="Write each source without it: DIR/<source>.jsonl.gz.", show_default=False
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything as JSON on stdout.")] = False,
) -> None:
    """Find test queries and documents in training data, and rows that are faulty by themselves.

    What is found is kept as a stamp below HOME/checks: runs on this data then carry a mark on their scores.
    """
    from gemma4vec.api.contamination import check
    from gemma4vec.cli.output import emit
    from gemma4vec.data.loading.resolve_names import resolve_sources

    found = check(resolve_sources(train), against or [], near=near, languages=language or (), drop=drop, clean=clean)
    emit(as_json, found, _render)


def _render(found: dict[str, Any]) -> Any:
    """The tables for a person."""
    from rich.console import Group
    from rich.text import Text

    from gemma4vec.api.contamination import example_lines, flaw_rows, overlap_lines, overlap_rows
    from gemma4vec.cli.output import table

    lines = [*overlap_lines(found), *example_lines(found)]
    last = [f"{found['seconds']:.1f} s"]
    if "drop" in found:
        last.append(f"to leave out: {found['drop']['rows']:,} rows, listed in {found['drop']['file']}")
    if "clean" in found:
        kept = ", ".join(f"{name} {rows:,} rows" for name, rows in found["clean"]["rows"].items())
        last.append(f"without them: {found['clean']['folder']} ({kept})")
    parts: list[Any] = []
    if found["suites"]:
        parts.append(table(*overlap_rows(found), title="test texts that stand in training data"))
    flaws = table(["source", "rows at fault by themselves", "count"], list(flaw_rows(found)))
    return Group(*parts, *map(Text, lines), flaws, *map(Text, last))
