"""`gemma4vec data check TRAIN... --against SUITE`: test texts in training data, and faulty rows."""

from pathlib import Path
from typing import Annotated, Any

import typer


def check_command(
    train: Annotated[
        list[str],
        typer.Argument(
            metavar="TRAIN...", help="Training data: JSONL files, a recipe (.yaml), a run folder, pycode or debian."
        ),
    ],
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against",
            metavar="SUITE",
            help="Suite, as for eval --suite, or a folder of suites; repeatable.",
            show_default=False,
        ),
    ] = None,
    near: Annotated[
        float, typer.Option("--near", help="Smallest Jaccard similarity of near-duplicates, 0.5 to 1.")
    ] = 0.7,
    language: Annotated[
        list[str] | None,
        typer.Option(
            "--language",
            help="Expected language (en, de); rows in other languages are faults. Repeatable.",
            show_default=False,
        ),
    ] = None,
    drop: Annotated[
        Path | None,
        typer.Option(
            "--drop", metavar="FILE", help="Write a list of the rows to leave out, as JSONL.", show_default=False
        ),
    ] = None,
    clean: Annotated[
        Path | None,
        typer.Option(
            "--clean",
            metavar="DIR",
            help="Write each source without those rows to DIR/<source>.jsonl.gz.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON on stdout.")] = False,
) -> None:
    """Find test queries and documents in training data, and faulty rows.

    The findings are recorded below HOME/checks; scores of runs on this data then carry a contamination mark.
    """
    from gemma4vec.api.contamination import check
    from gemma4vec.cli.output import emit
    from gemma4vec.data.loading.resolve_names import resolve_sources

    found = check(resolve_sources(train), against or [], near=near, languages=language or (), drop=drop, clean=clean)
    emit(as_json, found, _render)


def _render(found: dict[str, Any]) -> Any:
    """The tables and example lines."""
    from rich.console import Group
    from rich.text import Text

    from gemma4vec.api.contamination import example_lines, flaw_rows, overlap_lines, overlap_rows
    from gemma4vec.cli.output import table

    lines = [*overlap_lines(found), *example_lines(found)]
    last = [f"{found['seconds']:.1f} s"]
    if "drop" in found:
        last.append(f"rows to leave out: {found['drop']['rows']:,}, listed in {found['drop']['file']}")
    if "clean" in found:
        sizes = ", ".join(f"{name} {rows:,} rows" for name, rows in found["clean"]["rows"].items())
        last.append(f"cleaned sources: {found['clean']['folder']} ({sizes})")
    parts: list[Any] = []
    if found["suites"]:
        parts.append(table(*overlap_rows(found), title="test texts found in training data"))
    flaws = table(["source", "fault", "count"], list(flaw_rows(found)))
    return Group(*parts, *map(Text, lines), flaws, *map(Text, last))
