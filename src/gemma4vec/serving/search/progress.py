"""Progress of embedding many documents: a bar in a terminal, a line every ten seconds elsewhere."""

import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

SECONDS_BETWEEN_LINES = 10.0


def duration(seconds: float) -> str:
    """Seconds for people: `45 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


class IndexProgress:
    """Called as `progress(done, total)`; the first call says what was there before and counts for no rate."""

    def __init__(self, console: "Console", what: str = "functions") -> None:
        self.console, self.what = console, what
        self.done = self.total = 0
        self._first = 0
        self._started = self._last_line = 0.0
        self._bar: Progress | None = None

    def __enter__(self) -> "IndexProgress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: int, total: int) -> None:
        """Show that `done` of `total` are embedded."""
        now = time.monotonic()
        if not self._started:
            self._started = self._last_line = now
            self._first = done
            if self.console.is_terminal:
                self._bar = self._start_bar(done, total)
        self.done, self.total = done, total
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, rate=self._rate(now))
        elif now - self._last_line >= SECONDS_BETWEEN_LINES or done == total:
            self._last_line = now
            self.console.print(self._line(now), soft_wrap=True)

    def _rate(self, now: float) -> str:
        """Documents per second and the time left, since the first call."""
        embedded, seconds = self.done - self._first, now - self._started
        if embedded <= 0 or seconds <= 0:
            return ""
        rate = embedded / seconds
        return f"{rate:,.1f}/s, {duration((self.total - self.done) / rate)} left"

    def _line(self, now: float) -> str:
        share = f" ({self.done / self.total:.0%})" if self.total else ""
        return f"{self.done:,} of {self.total:,} {self.what}{share} {self._rate(now)}".rstrip()

    def _start_bar(self, done: int, total: int) -> "Progress":
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        bar = Progress(
            TextColumn(f"embedding {self.what}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            console=self.console,
        )
        bar.add_task(self.what, total=total, completed=done, rate="")
        bar.start()
        return bar
