"""Progress of a running matrix: a live table on a terminal, log lines elsewhere."""

import logging
import time
from typing import TYPE_CHECKING

from rich.live import Live
from rich.table import Table

from gemma4vec.cli.output import console, table

if TYPE_CHECKING:
    from gemma4vec.pipeline.matrix.run import View

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 30.0
COLUMNS = ["cell", "state", "step", "loss", "tokens/s", "dev", "minutes"]
MOST_ROWS = 40  # on a terminal; the first cells are hidden first


class Screen:
    """Shows the cells of a matrix; a context manager."""

    def __init__(self) -> None:
        self._live = Live(console=console, refresh_per_second=2, transient=True) if console.is_terminal else None
        self._states: dict[str, str] = {}
        self._last = time.monotonic()

    def __enter__(self) -> "Screen":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, views: "list[View]") -> None:
        """Draw the current state of the cells."""
        if self._live:
            self._live.update(_table(views))
            return
        for view in views:
            state = f"{view.state}{f' ({view.why})' if view.why else ''}"
            fresh = self._states.get(view.cell.key, "waiting") != state
            due = view.step is not None and time.monotonic() - self._last >= SECONDS_BETWEEN_LINES
            if fresh or due:
                self._states[view.cell.key] = state
                self._last = time.monotonic()
                figures = [
                    f"{name} {value}"
                    for name, value in zip(COLUMNS[2:], _cells(view)[2:], strict=True)
                    if value not in ("-", "0.0")
                ]
                logger.info(f"{_name(view)}: {state}{'  ' if figures else ''}{'  '.join(figures)}")


def _name(view: "View") -> str:
    rate = "" if view.cell.rate is None else f", rate {view.cell.rate:g}"
    return f"{view.cell.variant}{rate}, seed {view.cell.seed}"


def _cells(view: "View") -> list[str]:
    return [
        _name(view),
        view.state,
        "-" if view.step is None else str(view.step),
        "-" if view.loss is None else f"{view.loss:.3f}",
        "-" if view.tokens_per_second is None else f"{view.tokens_per_second:,.0f}",
        "-" if view.dev is None else f"{view.dev:.4f}",
        f"{view.minutes:.1f}",
    ]


def _table(views: "list[View]") -> Table:
    hidden = max(0, len(views) - min(MOST_ROWS, max(5, console.height - 6)))
    title = f"{hidden} earlier cells not shown" if hidden else None
    return table(COLUMNS, [_cells(view) for view in views[hidden:]], title)
