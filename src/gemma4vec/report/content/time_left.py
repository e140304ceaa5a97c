"""How much of a stage is done, and how long the rest takes at its mean speed so far."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gemma4vec.report.content.training_log import number


@dataclass(frozen=True)
class TimeLeft:
    """Progress of the stage that trains.

    Attributes:
        stage, stages: its number from 0, and how many there are.
        step, steps: optimizer steps done, and of the whole stage; None: not known yet.
        share: done of the stage's budget, 0 to 1; None: not known yet.
        seconds: left of the stage; None: not known yet. Evaluations are not counted.
    """

    stage: int
    stages: int
    step: int
    steps: int | None
    share: float | None
    seconds: float | None


def time_left(events: Sequence[Mapping[str, Any]], recipe: Mapping[str, Any]) -> TimeLeft | None:
    """Progress from the last step's event; None before the first step.

    Args:
        events: of the run.
        recipe: as a tree; a stage's `budget` has steps, rows, tokens, or minutes and `least_steps`.
    """
    last = next((one for one in reversed(events) if one.get("event") == "step" and number(one.get("step"))), None)
    if last is None:
        return None
    stage, step = int(number(last.get("stage")) or 0), int(last["step"])
    stages = recipe.get("stages")
    known = stages if isinstance(stages, list) else []
    part = known[stage] if stage < len(known) and isinstance(known[stage], dict) else {}
    given = part.get("budget")
    budget = given if isinstance(given, dict) else {}
    counted = [one for one in events if one.get("event") == "budget" and (number(one.get("stage")) or 0) == stage]
    steps = number(counted[-1].get("steps")) if counted else number(budget.get("steps"))
    pairs = [
        (float(step), steps),
        (number(last.get("rows")), number(budget.get("rows"))),
        (number(last.get("tokens")), number(budget.get("tokens"))),
    ]
    shares = [done / whole for done, whole in pairs if done and whole]
    share = min(shares[0], 1.0) if shares else None
    spent = number(last.get("seconds"))
    seconds = spent * (1.0 - share) / share if spent is not None and share else None
    return TimeLeft(stage, max(len(known), stage + 1), step, int(steps) if steps else None, share, seconds)
