"""Progress of a running matrix: a live table on a terminal, log lines elsewhere."""

import logging
import time
from typing import TYPE_CHECKING

from rich.live import Live
from rich.table import Table

from gemma4vec.cli.output import console, table

if TYPE_CHECKING:
    from gemma4vec.pipeline.matrix.run import CellStatus

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

    def show(self, statuses: "list[CellStatus]") -> None:
        """Draw the current state of the cells."""
        if self._live:
            self._live.update(_make_table(statuses))
            return
        for status in statuses:
            state = f"{status.state}{f' ({status.why})' if status.why else ''}"
            fresh = self._states.get(status.cell.key, "waiting") != state
            due = status.step is not None and time.monotonic() - self._last >= SECONDS_BETWEEN_LINES
            if fresh or due:
                self._states[status.cell.key] = state
                self._last = time.monotonic()
                figures = [
                    f"{name} {value}"
                    for name, value in zip(COLUMNS[2:], _format_cells(status)[2:], strict=True)
                    if value not in ("-", "0.0")
                ]
                logger.info(f"{_format_name(status)}: {state}{'  ' if figures else ''}{'  '.join(figures)}")


def _format_name(status: "CellStatus") -> str:
    rate = "" if status.cell.rate is None else f", rate {status.cell.rate:g}"
    return f"{status.cell.variant}{rate}, seed {status.cell.seed}"


def _format_cells(status: "CellStatus") -> list[str]:
    return [
        _format_name(status),
        status.state,
        "-" if status.step is None else str(status.step),
        "-" if status.loss is None else f"{status.loss:.3f}",
        "-" if status.tokens_per_second is None else f"{status.tokens_per_second:,.0f}",
        "-" if status.dev is None else f"{status.dev:.4f}",
        f"{status.minutes:.1f}",
    ]


def _make_table(statuses: "list[CellStatus]") -> Table:
    hidden = max(0, len(statuses) - min(MOST_ROWS, max(5, console.height - 6)))
    title = f"{hidden} earlier cells not shown" if hidden else None
    return table(COLUMNS, [_format_cells(status) for status in statuses[hidden:]], title)
