"""What a person sees of a long training: one line that redraws on a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

_PLAIN_SECONDS = 10.0


class ProgressLine:
    """Loss, tokens/s and time left."""

    def __init__(self, name: str, stream: TextIO | None = None):
        self.name = name
        self.stream = stream or sys.stderr
        self.redraws = self.stream.isatty()
        self._losses: deque[float] = deque(maxlen=10)
        self._last = 0.0
        self._width = 0

    def step(self, step: int, total: int | None, loss: float, tokens_per_second: float, seconds_a_step: float) -> None:
        """Show where training stands; `loss` is smoothed over the last ten steps."""
        self._losses.append(loss)
        now = time.monotonic()
        last_step = total is not None and step >= total
        if not last_step and now - self._last < (0.2 if self.redraws else _PLAIN_SECONDS):
            return
        self._last = now
        mean_loss = sum(self._losses) / len(self._losses)
        left = f"{_clock((total - step) * seconds_a_step)} left" if total is not None else "measuring the pace"
        of = f"/{total}" if total is not None else ""
        line = f"{self.name} step {step}{of}  loss {mean_loss:.4f}  {tokens_per_second:,.0f} tokens/s  {left}"
        if self.redraws:
            self.stream.write("\r" + line.ljust(self._width))
            self._width = len(line)
            if last_step:
                self.stream.write("\n")
        else:
            self.stream.write(line + "\n")
        self.stream.flush()

    def say(self, text: str) -> None:
        """A line of its own."""
        if self.redraws and self._width:
            self.stream.write("\r" + " " * self._width + "\r")
            self._width = 0
        self.stream.write(text + "\n")
        self.stream.flush()


def once(say: Callable[[str], None]) -> Callable[[str], None]:
    """Say each line the first time alone: for many short-lived speakers, such as the embedder of each evaluation."""
    said: set[str] = set()

    def say_if_new(line: str) -> None:
        if line not in said:
            said.add(line)
            say(line)

    return say_if_new


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
