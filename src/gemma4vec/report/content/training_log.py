"""The log of a training from `events.jsonl`: steps, evaluations and cost."""

import math
import statistics
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from typing import Any


@dataclass(frozen=True)
class Step:
    """One optimizer step. `tokens` and `seconds` count from the start of training."""

    step: int
    tokens: float
    seconds: float
    loss: float
    rate: float | None
    padding: float | None


@dataclass(frozen=True)
class Evaluation:
    """nDCG@10 on a suite during training, with its 95% interval if recorded."""

    suite: str
    step: int
    tokens: float
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class HeldOut:
    """The loss on texts that a stage never trains on, and of each part of its task by name."""

    stage: int
    step: int
    value: float
    texts: int
    parts: list[tuple[str, float]]


@dataclass(frozen=True)
class TrainingLog:
    """The events of a run, in order."""

    steps: list[Step]
    evaluations: list[Evaluation]
    finished: dict[str, Any] | None
    held_out: list[HeldOut] = field(default_factory=list)

    @property
    def skipped_losses(self) -> int:
        """Number of steps whose loss is not finite."""
        return sum(not math.isfinite(step.loss) for step in self.steps)

    @cached_property
    def smoothed_loss(self) -> list[tuple[float, float]]:
        """Return (tokens, loss): means over centered windows of a twentieth of the run; centered means do not lag.

        The window shrinks towards the start, where the loss falls steeply. At the end, where it is flat, it is cut off.
        """
        finite = [step for step in self.steps if math.isfinite(step.loss)]
        half = max(len(finite) // 40, 1)
        sums = [0.0, *accumulate(step.loss for step in finite)]
        smooth = []
        for place, step in enumerate(finite):
            first, last = place - min(half, place), min(place + min(half, place), len(finite) - 1)
            smooth.append((step.tokens, (sums[last + 1] - sums[first]) / (last + 1 - first)))
        return smooth

    def costs(self) -> list[tuple[str, str]]:
        """Return the cost of the training as (name, value with unit)."""
        finished = self.finished or {}
        last = self.steps[-1] if self.steps else None
        seconds = last.seconds if last else number(finished.get("seconds"))
        tokens = last.tokens if last else number(finished.get("tokens"))
        rates = [step.rate for step in self.steps if step.rate is not None]
        paddings = [step.padding for step in self.steps if step.padding is not None]
        memory = number(finished.get("peak_memory_bytes"))
        overall = tokens / seconds if tokens and seconds else None
        rows = [
            ("training time", f"{seconds / 60:.1f} min" if seconds else ""),
            ("steps", f"{last.step:,}" if last else ""),
            ("tokens trained", f"{tokens:,.0f}" if tokens else ""),
            ("throughput, overall", f"{overall:,.0f} tokens/s" if overall else ""),
            ("throughput, median step", f"{statistics.median(rates):,.0f} tokens/s" if rates else ""),
            ("padding and unused batch ends", f"{statistics.fmean(paddings):.1%}" if paddings else ""),
            ("peak memory", f"{memory / 2**30:.2f} GiB" if memory else ""),
        ]
        return [(name, value) for name, value in rows if value]


def read_training(events: Sequence[dict[str, Any]]) -> TrainingLog:
    """Sort events. A resumed run repeats the steps after its checkpoint; the later event of each step counts.

    Events count steps, tokens and seconds from 0 in each stage; the log counts on across stages.
    """
    by_step: dict[tuple[int, int], Step] = {}
    found: dict[tuple[int, int, str], dict[str, Any]] = {}
    held_out: dict[tuple[int, int], HeldOut] = {}
    finished = None
    for event in events:
        at, stage = number(event.get("step")), int(number(event.get("stage")) or 0)
        if event.get("event") == "step" and at is not None:
            by_step[stage, int(at)] = _step(event, int(at))
        elif event.get("event") == "evaluation" and number(event.get("ndcg@10")) is not None:
            found[stage, int(at or 0), str(event.get("suite", "suite"))] = event
        elif event.get("event") == "held_out" and number(event.get("value")) is not None:
            held_out[stage, int(at or 0)] = _held_out(event, stage, int(at or 0))
        elif event.get("event") == "finished":
            finished = event
    steps: dict[tuple[int, int], Step] = {}
    before, stage_now, last = (0, 0.0, 0.0), 0, Step(0, 0.0, 0.0, math.nan, None, None)
    for stage, at in sorted(by_step):
        if stage != stage_now:
            before, stage_now = (last.step, last.tokens, last.seconds), stage
        one = by_step[stage, at]
        last = one
        if any(before):
            last = replace(one, step=at + before[0], tokens=one.tokens + before[1], seconds=one.seconds + before[2])
        steps[stage, at] = last
    places = list(steps)
    evaluations = [_evaluation(event, place, places, steps) for place, event in sorted(found.items())]
    return TrainingLog(list(steps.values()), evaluations, finished, [one for _, one in sorted(held_out.items())])


def _held_out(event: dict[str, Any], stage: int, step: int) -> HeldOut:
    parts = event.get("parts")
    named = [(str(name), number(value)) for name, value in (parts.items() if isinstance(parts, dict) else ())]
    known = [(name, value) for name, value in named if value is not None]
    return HeldOut(stage, step, float(event["value"]), int(number(event.get("texts")) or 0), known)


def _evaluation(
    event: dict[str, Any],
    place: tuple[int, int, str],
    places: Sequence[tuple[int, int]],
    steps: Mapping[tuple[int, int], Step],
) -> Evaluation:
    """Return an evaluation with the token count of the last step before it."""
    stage, at, suite = place
    done = bisect_right(places, (stage, at))
    step, tokens = (steps[places[done - 1]].step, steps[places[done - 1]].tokens) if done else (0, 0.0)
    return Evaluation(suite, step, tokens, float(event["ndcg@10"]), number(event.get("low")), number(event.get("high")))


def number(value: Any) -> float | None:
    """Return a finite number as float, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _step(event: dict[str, Any], step: int) -> Step:
    loss = number(event.get("loss"))
    tokens, seconds = number(event.get("tokens")), number(event.get("seconds"))
    return Step(
        step,
        float(step) if tokens is None else tokens,
        0.0 if seconds is None else seconds,
        math.nan if loss is None else loss,
        number(event.get("tokens_per_second")),
        number(event.get("padding_share")),
    )
