"""Convert a budget to a number of optimizer steps.

Minutes and tokens become a fixed number of steps after the first steps have been measured: a schedule needs an end, and
a resumed run must have the same one. The number is written to a file as soon as it is known.
"""

import os
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gemma4vec.files import write_json
from gemma4vec.recipe import schema

# The first step compiles and warms caches, so its time is not typical.
_SKIPPED = 1
_OUTLIER = 3.0  # a measured step counts at most this multiple of the median
# Fewer steps of a budget in minutes are said to be few: the schedule is then mostly warm-up.
_FEW = 30


@dataclass
class StepBudget:
    """Turns a budget into a number of steps.

    Attributes:
        total: number of optimizer steps; None until it is known.
        watched: number of measured steps after which it becomes known.
        file: the file to write it to; None: another process writes it.
        affordable: steps that the minutes give at the measured pace; None: no budget in minutes, or not measured here.
    """

    budget: schema.Budget
    total: int | None
    watched: int
    file: Path | None
    affordable: int | None = None
    _seconds: list[float] = field(default_factory=list)

    def seen(self, step: int, seconds: float, tokens: int) -> bool:
        """Measure step `step` (from 0); `tokens` counts all steps. Return whether the total became known by it."""
        if self.total is not None:
            return False
        self._seconds.append(seconds)
        if step + 1 < self.watched:
            return False
        self.total = max(step + 1, self._estimate(tokens / (step + 1)))
        if self.file is not None:
            write_json(self.file, {"steps": self.total, "watched": self.watched})
        return True

    def _estimate(self, tokens_a_step: float) -> int:
        if self.budget.tokens is not None:
            return round(self.budget.tokens / tokens_a_step)
        assert self.budget.minutes is not None
        self.affordable = steps_of_minutes(self.budget.minutes, self.seconds_a_step)
        return max(self.affordable, self.budget.least_steps or 0)

    @property
    def seconds_a_step(self) -> float:
        """Mean seconds of the measured steps but the first.

        The mean, not the median, because long batches count too. Outliers are cut: a step that compiled a kernel for a
        new shape is not typical.
        """
        timed = self._seconds[_SKIPPED:] or self._seconds
        most = _OUTLIER * statistics.median(timed)
        return statistics.fmean(min(one, most) for one in timed)

    def pace(self) -> str | None:
        """What the minutes give at the measured pace, for a person; None: nothing is to be said."""
        if self.affordable is None or self.total is None:
            return None
        said = f"{self.budget.minutes:g} minutes give {self.affordable:,} steps at {self.seconds_a_step:.1f} s a step"
        if self.total > self.affordable and self.budget.least_steps is not None:
            minutes = (self.total - _SKIPPED) * self.seconds_a_step / 60.0
            return f"{said}; {self.total:,} are made (budget.least_steps), in about {minutes:.0f} minutes"
        if self.affordable >= _FEW:
            return said
        return f"{said}, few to learn from{_busy()}; budget.least_steps={_FEW} goes on to {_FEW}"


def steps_of_minutes(minutes: float, seconds_a_step: float) -> int:
    """Optimizer steps in a number of minutes. Their clock starts after the first step, which compiles."""
    return _SKIPPED + round(minutes * 60.0 / seconds_a_step)


def _busy() -> str:
    """That other programs use this machine, where they do."""
    cores = os.cpu_count() or 1
    load = os.getloadavg()[0]
    return f" (load {load:.1f} on {cores} cores: other programs take some of it)" if load > cores + 1 else ""


def known_steps(budget: schema.Budget, rows_per_step: int) -> int | None:
    """Optimizer steps of a budget in steps or rows; None: minutes and tokens have to be measured first."""
    if budget.steps is not None:
        return budget.steps
    return None if budget.rows is None else max(1, round(budget.rows / rows_per_step))


def step_budget(
    stage: schema.Stage, rows_per_step: int, folder: Path | None, known: dict[str, Any] | None
) -> StepBudget:
    """The budget of a stage. `known` is the file of an interrupted run, `folder` the folder to write the file to."""
    budget = stage.budget
    watched = 0
    total = known_steps(budget, rows_per_step)
    if total is None:
        watched = max(3, min(8, stage.optimizer.warmup_steps))
        total = known["steps"] if known else None
    return StepBudget(budget, total, watched, folder / "budget.json" if folder else None)
