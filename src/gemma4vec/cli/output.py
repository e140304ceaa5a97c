"""Output of commands: results on stdout, as text or as JSON; log lines and progress on stderr."""

import json
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

MAXIMAL_WIDTH = 100
T = TypeVar("T")


def _console(stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False, soft_wrap=False)
    # In files and pipes a table has a fixed width instead of rich's 80 columns, so that a log looks like the screen.
    console.width = min(console.width, MAXIMAL_WIDTH) if console.is_terminal else MAXIMAL_WIDTH
    return console


console = _console(stderr=True)
results = _console(stderr=False)


def print_json(value: Any) -> None:
    """Print `value` as one JSON document on stdout. NaN and infinities become null, since JSON has neither.

    Characters that the terminal's encoding lacks, and lone surrogates, are written as JSON escapes.
    """
    text = json.dumps(_finite(value), indent=2, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(_finite(value), indent=2)
    print(text)


def emit(as_json: bool, value: T, render: Callable[[T], Any]) -> None:
    """Print a command's result on stdout: `value` as JSON, or `render(value)`, a table or text.

    With `as_json`, `value` must consist of dicts, lists, strings, numbers, booleans and None.
    """
    if as_json:
        print_json(value)
        return
    rendered = render(value)
    if isinstance(rendered, str):
        results.print(Text(rendered), soft_wrap=True)
    else:
        results.print(rendered)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None = None) -> Table:
    """A table at most 100 characters wide: numbers align right, long cells wrap.

    Args:
        columns: headings.
        rows: one cell a column; floats get 4 decimals, None becomes a dash.
    """
    made = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for index, heading in enumerate(columns):
        numeric = index > 0 and any(isinstance(row[index], int | float) for row in rows)
        made.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(_cell(value)) for value in row))
    return made


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
