"""How results show themselves: as text at a prompt, as HTML in a notebook.

Texts of others are escaped, without control characters. The HTML has no script, and no color of its own, so that it
looks right on light and dark pages.
"""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import StringIO

from markupsafe import Markup

from gemma4vec.text.sanitize import sanitize

LONGEST = 200  # characters of a cell; the objects hold the whole
LONGEST_LINE = 1000
WIDTH = 100  # columns of a screen


@dataclass(frozen=True)
class Shown:
    """A small table with lines below it.

    Attributes:
        title: in one line.
        columns: headings; empty where there are only lines.
        rows: cells; a float has 4 decimals, None is a dash.
        lines: sentences below the table.
    """

    title: str
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[object]] = ()
    lines: Sequence[str] = field(default=())

    def text(self) -> str:
        """For a screen of 100 columns."""
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        console = Console(file=StringIO(), width=WIDTH, color_system=None, highlight=False)
        if self.rows:
            table = Table(title=Text(cell(self.title)), box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
            for place, heading in enumerate(self.columns):
                numeric = any(isinstance(row[place], int | float) for row in self.rows)
                table.add_column(Text(cell(heading)), justify="right" if numeric else "left", overflow="fold")
            for row in self.rows:
                table.add_row(*(Text(cell(value)) for value in row))
            console.print(table)
        else:
            console.print(Text(cell(self.title)))
        for line in self.lines:
            console.print(Text(cell(line, LONGEST_LINE)))
        stream = console.file
        assert isinstance(stream, StringIO)
        return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()).strip("\n")

    def html(self) -> str:
        """For a notebook."""
        parts = [Markup("<div><b>{}</b>").format(cell(self.title))]
        if self.rows:
            heading = Markup("").join(Markup("<th>{}</th>").format(cell(name)) for name in self.columns)
            parts.append(Markup("<table><thead><tr>{}</tr></thead><tbody>").format(heading))
            parts += [
                Markup("<tr>{}</tr>").format(
                    Markup("").join(Markup("<td>{}</td>").format(cell(value)) for value in row)
                )
                for row in self.rows
            ]
            parts.append(Markup("</tbody></table>"))
        parts += [Markup("<div>{}</div>").format(cell(line, LONGEST_LINE)) for line in self.lines]
        parts.append(Markup("</div>"))
        return str(Markup("").join(parts))


def cell(value: object, longest: int = LONGEST) -> str:
    """A value as plain text in one line of limited length."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, int):
        return f"{value:,}"
    text = " ".join(sanitize(str(value)).split())
    return text if len(text) <= longest else text[: longest - 3] + "..."


class Showing(ABC):
    """An object that shows itself; subclasses say what in `_shown`."""

    @abstractmethod
    def _shown(self) -> Shown:
        """Title, header, rows and lines."""

    def __repr__(self) -> str:
        return self._shown().text()

    def _repr_html_(self) -> str:
        return self._shown().html()

    def show(self) -> None:
        """Print it, at most 100 columns wide."""
        print(self._shown().text())


@contextlib.contextmanager
def progress_shown(wanted: bool) -> Iterator[None]:
    """Show log lines and the progress of long work on standard error inside the block, where nobody shows them yet."""
    from gemma4vec.machine import terminal

    if not wanted or terminal.is_shown():
        yield
        return
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    with terminal.show_on(lambda: console):
        yield
