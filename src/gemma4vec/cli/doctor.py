"""`gemma4vec doctor`: what this machine can do, and what to do about what is missing."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType

    from gemma4vec.machine.doctor import Check

_MARKS = {"ok": "ok", "warn": "!", "missing": "MISSING"}


def doctor_command(
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable findings on stdout.")] = False,
) -> None:
    """Say what this machine can do and what is missing. Warnings do not fail: the exit code is 0."""
    from gemma4vec.cli.output import emit
    from gemma4vec.machine.describe import describe_machine
    from gemma4vec.machine.doctor import run_checks

    checks = [*run_checks(), *_check_bases()]
    if as_json:
        emit(True, {"machine": describe_machine(), "checks": [check.as_dict() for check in checks]}, str)
    else:
        emit(False, checks, _render)


def _check_bases() -> "list[Check]":
    """One finding per bundled base. They live in `model/`, which `machine/` must not import."""
    from gemma4vec.machine.doctor import Check
    from gemma4vec.model.bases.resolve import list_bundled

    found = []
    for base in list_bundled():
        name = f"bundled:{base.name}"
        if base.cached:
            found.append(Check(name, "ok", "unpacked in the cache"))
        elif base.installed:
            found.append(Check(name, "ok", "installed; unpacked at first use (about 10 seconds)"))
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
    made.add_column("what", no_wrap=True)
    made.add_column("finding, and what to do", overflow="fold")
    for check in checks:
        words = Text(check.finding)
        if check.advice:
            words.append(f"\n-> {check.advice}", style="bold")
        made.add_row(Text(_MARKS[check.state], style=styles[check.state]), check.name, words)
    return made
