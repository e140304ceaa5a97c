"""What a person sees of long work: log lines, and a bar on a terminal or a plain line every ten seconds elsewhere.

A library call shows no progress, and its log lines go where `logging` is set up to send them. A program that shows both
calls `show_on` with a rich console: lines and bars share it, so that no line tears a bar.
"""

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

PACKAGE = "gemma4vec"  # the logger above all modules' loggers
SECONDS_BETWEEN_LINES = 10.0


def duration(seconds: float) -> str:
    """Seconds for people: `45 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(max(0.0, seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


@contextlib.contextmanager
def prints_on_stderr() -> Iterator[None]:
    """While this is open, what libraries print on stdout goes to stderr, since stdout has a command's result alone.

    This also holds for compiled libraries, which write to the file descriptor. Where a process has no stdout or stderr,
    nothing changes.
    """
    with contextlib.suppress(AttributeError, OSError):  # a process without a console has None there
        sys.stdout.flush()
    try:
        stdout = os.dup(1)
    except OSError:
        yield
        return
    try:
        with contextlib.suppress(OSError):
            os.dup2(2, 1)
        yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)


class Display(logging.Handler):
    """Log lines, and below them the bars of all work that goes on now, on one console; threads may share it.

    `console` is called when the first line or bar is there: a command that shows none does not import rich.
    """

    def __init__(self, console: Callable[[], "Console"]):
        super().__init__()
        self._make_console = console
        self._lock = threading.RLock()
        self._area: Progress | None = None

    @property
    def console(self) -> "Console":
        """Where everything is drawn."""
        return self._make_console()

    def emit(self, record: logging.LogRecord) -> None:
        """A record's message, plain."""
        try:
            self.line(self.format(record))
        except Exception:
            self.handleError(record)

    def line(self, text: str) -> None:
        """A line of its own, above the bars; never wrapped, so that a log has it as one line."""
        from rich.text import Text

        self.console.print(Text(text), soft_wrap=True)

    def add(self, what: str) -> "TaskID":
        """Draw one more bar."""
        with self._lock:
            if self._area is None:
                self._area = self._new_area()
                self._area.start()
            return self._area.add_task(what, total=None, text="")

    def update(self, bar: "TaskID", done: int, total: int | None, text: str) -> None:
        """Move a bar."""
        with self._lock:
            if self._area is not None:
                self._area.update(bar, completed=done, total=total, text=text)

    def remove(self, bar: "TaskID") -> None:
        """Take a bar away, and the area with its last one."""
        with self._lock:
            if self._area is not None:
                self._area.remove_task(bar)
                if not self._area.task_ids:
                    self._area.stop()
                    self._area = None

    def _new_area(self) -> "Progress":
        from rich.progress import BarColumn, Progress, TextColumn

        return Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[text]}", markup=False),
            console=self.console,
            transient=True,
            redirect_stdout=False,  # a result on standard output is not this console's
            refresh_per_second=5,
        )


_display: Display | None = None


@contextlib.contextmanager
def show_on(console: Callable[[], "Console"]) -> Iterator[None]:
    """Show the package's log lines (from INFO on) and progress on a console inside the block."""
    global _display
    logger = logging.getLogger(PACKAGE)
    before, level, propagate = _display, logger.level, logger.propagate
    _display = Display(console)
    logger.addHandler(_display)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    added = _display
    try:
        yield
    finally:
        logger.removeHandler(added)
        logger.setLevel(level)
        logger.propagate = propagate
        _display = before


def is_shown() -> bool:
    """Whether lines and progress are shown already, or were silenced for good."""
    return _display is not None or logging.getLogger(PACKAGE).level > logging.CRITICAL


def fall_silent() -> None:
    """Show nothing in this process from here on: of several that train together, the first one speaks."""
    global _display
    _display = None
    logging.getLogger(PACKAGE).setLevel(logging.CRITICAL + 1)


class ProgressBar:
    """One piece of work, called as `bar(done, total)`. What the first call counts was done before: it has no rate.

    Args:
        what: the work's name.
        unit: what is counted, in the plural.
        final_line: leave the last state as a line.
    """

    def __init__(self, what: str, unit: str, *, final_line: bool = False):
        self.what, self.unit, self.final_line = what, unit, final_line
        self.done = 0
        self.total: int | None = None
        self._first = 0
        self._started: float | None = None
        self._last_line = 0.0
        self._display: Display | None = None
        self._bar: TaskID | None = None

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take the bar away."""
        if self._display is not None and self._bar is not None:
            self._display.remove(self._bar)
        self._bar = None

    def __call__(self, done: int, total: int | None, detail: str | None = None) -> None:
        """Show that `done` of `total` are done (None: nobody knows the total yet).

        `detail` is what else to show; without it, the rate and the time left.
        """
        now = time.monotonic()
        if self._started is None:
            self._started = self._last_line = now
            self._first = done
            self._display = _display
            if _display is not None and _display.console.is_terminal:
                self._bar = _display.add(self.what)
        self.done, self.total = done, total
        if self._display is None:
            return
        text = self._text(self._rate(now - self._started) if detail is None else detail)
        ended = self.final_line and done == total
        if self._bar is not None:
            self._display.update(self._bar, done, total, text)
        elif now - self._last_line < SECONDS_BETWEEN_LINES and not ended:
            return
        if self._bar is None or ended:
            self._last_line = now
            self._display.line(f"{self.what}: {text}")

    def _text(self, detail: str) -> str:
        of = "" if self.total is None else f" of {self.total:,}"
        share = f" ({self.done / self.total:.0%})" if self.total else ""
        return f"{self.done:,}{of} {self.unit}{share}{', ' if detail else ''}{detail}"

    def _rate(self, seconds: float) -> str:
        """Units per second and the time left, since the first call."""
        made = self.done - self._first
        if made <= 0 or seconds <= 0:
            return ""
        rate = made / seconds
        left = "" if self.total is None else f", {duration((self.total - self.done) / rate)} left"
        return f"{rate:,.1f}/s{left}"


@contextlib.contextmanager
def bars_by_stage(what: str) -> Iterator[Callable[[str, int, int], None]]:
    """A callback `(stage, done, total)` that shows each stage of a piece of work as a bar of its own."""
    bars: dict[str, ProgressBar] = {}

    def report(stage: str, done: int, total: int) -> None:
        if stage not in bars:
            bars[stage] = ProgressBar(what, stage)
        bars[stage](done, total)

    try:
        yield report
    finally:
        for bar in bars.values():
            bar.close()
