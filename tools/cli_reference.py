"""docs/reference/cli.md from the commands themselves: what `--help` shows, on one page.

python tools/cli_reference.py            # writes the page
python tools/cli_reference.py --check    # exit code 1 where the page is not what this would write
"""

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from gemma4vec.cli.lazy import load
from gemma4vec.cli.main import COMMANDS, app

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "cli.md"
INTRODUCTION = """# Command line

<!-- Written by tools/cli_reference.py: change the commands, not this page. -->

Every command has `--help`. Results go to standard output; with `--json` they are JSON there, and all else goes to
standard error. Exit codes: 0 done, 1 the work failed, 2 bad usage or bad input, 130 interrupted.
"""


def page() -> str:
    """The page's Markdown."""
    root = typer.Context(get_command(app), info_name="gemma4vec")
    links = [(f"[`{name}`](#gemma4vec-{name})", line) for name, (_, line) in COMMANDS.items()]
    parts = [INTRODUCTION, _table("command", links)]
    for name, (target, _) in COMMANDS.items():
        parts.extend(_sections(load(target, name), f"gemma4vec {name}", root, level=2))
    return "\n".join(parts)


def _sections(command: Any, path: str, parent: typer.Context, level: int) -> Iterator[str]:
    """A command's section, then those of its subcommands; `command` is what typer makes of a function or a group."""
    context = typer.Context(command, info_name=path.split()[-1], parent=parent)
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    text = inspect.cleandoc(command.help or "").replace("\b\n", "")
    yield f"{'#' * level} {path}\n\n{text}\n\n```text\n{usage}\n```\n"
    for kind in ("argument", "option"):
        found = [p.get_help_record(context) for p in command.get_params(context) if p.param_type_name == kind]
        rows = [(f"`{name}`", line) for name, line in filter(None, found) if name != "--help"]
        if rows:
            yield _table(kind, rows)
    if isinstance(command, TyperGroup):
        for name in command.list_commands(context):
            yield from _sections(command.get_command(context, name), f"{path} {name}", context, level + 1)


def _table(kind: str, rows: list[tuple[str, str]]) -> str:
    lines = [f"| {kind} | meaning |", "|---|---|"]
    lines += ["| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def main() -> int:
    text = page()
    if "--check" not in sys.argv[1:]:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        print("docs/reference/cli.md is out of date: run python tools/cli_reference.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
