"""`gemma4vec doctor`: hardware, libraries and models on this machine, and how to add what is missing."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType

    from gemma4vec.machine.doctor import Check

_MARKS = {"ok": "ok", "warn": "!", "missing": "MISSING"}


def doctor_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON on stdout.")] = False,
) -> None:
    """Check hardware, libraries and models, and say how to add what is missing. The exit code is always 0."""
    from gemma4vec.cli.output import emit
    from gemma4vec.machine.describe import describe_machine
    from gemma4vec.machine.doctor import run_checks

    checks = [*run_checks(), *_check_bases()]
    if as_json:
        emit(True, {"machine": describe_machine(), "checks": [check.as_dict() for check in checks]}, str)
    else:
        emit(False, checks, _render)


def _check_bases() -> "list[Check]":
    """One check for each bundled base; here because `machine/` must not import `model/`."""
    from gemma4vec.machine.doctor import Check
    from gemma4vec.model.bases.resolve import list_bundled

    found = []
    for base in list_bundled():
        name = f"bundled:{base.name}"
        if base.cached:
            found.append(Check(name, "ok", "unpacked in the cache"))
        elif base.installed:
            found.append(Check(name, "ok", "installed; the first use unpacks it (about 10 seconds)"))
        else:
            found.append(Check(name, "missing", "its packages are not installed", base.install))
    return found


def _render(checks: "list[Check]") -> "RenderableType":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    styles = {"ok": "green", "warn": "yellow", "missing": "red"}
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    made.add_column("")
    made.add_column("check", no_wrap=True)
    made.add_column("finding and advice", overflow="fold")
    for check in checks:
        words = Text(check.finding)
        if check.advice:
            words.append(f"\n-> {check.advice}", style="bold")
        made.add_row(Text(_MARKS[check.state], style=styles[check.state]), check.name, words)
    return made
