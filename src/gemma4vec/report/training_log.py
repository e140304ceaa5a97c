"""What `events.jsonl` says about a training: one row per step, one per evaluation, and what it cost."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any


@dataclass(frozen=True)
class Step:
    """One optimiser step. `tokens` and `seconds` count from the start of training."""

    step: int
    tokens: float
    seconds: float
    loss: float
    rate: float | None
    padding: float | None


@dataclass(frozen=True)
class Evaluation:
    """nDCG@10 on a suite during training, with its 95% interval where it was recorded."""

    suite: str
    step: int
    tokens: float
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class TrainingLog:
    """The events of a run, in order."""

    steps: list[Step]
    evaluations: list[Evaluation]
    finished: dict[str, Any] | None

    @property
    def skipped_losses(self) -> int:
        """Steps whose loss is not a finite number."""
        return sum(not math.isfinite(step.loss) for step in self.steps)

    def smoothed_loss(self) -> list[tuple[float, float]]:
        """(tokens, loss): means over windows of a twentieth of the run, centred, so that the curve does not lag.

        The window shrinks towards the start, where the loss falls steeply, and is cut off at the end, where it is flat.
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
        """What the training used, as (name, value with unit)."""
        finished = self.finished or {}
        last = self.steps[-1] if self.steps else None
        seconds = number(finished.get("seconds")) or (last.seconds if last else None)
        tokens = number(finished.get("tokens")) or (last.tokens if last else None)
        rates = [step.rate for step in self.steps if step.rate is not None]
        paddings = [step.padding for step in self.steps if step.padding is not None]
        memory = number(finished.get("peak_memory_bytes"))
        overall = tokens / seconds if tokens and seconds else None
        rows = [
            ("training time", f"{seconds / 60:.1f} min" if seconds else ""),
            ("steps", f"{last.step:,}" if last else ""),
            ("tokens trained", f"{tokens:,.0f}" if tokens else ""),
            ("throughput, over all", f"{overall:,.0f} tokens/s" if overall else ""),
            ("throughput, median step", f"{statistics.median(rates):,.0f} tokens/s" if rates else ""),
            ("computed but empty (padding, tails)", f"{statistics.fmean(paddings):.1%}" if paddings else ""),
            ("peak memory", f"{memory / 2**30:.2f} GiB" if memory else ""),
        ]
        return [(name, value) for name, value in rows if value]


def read_training(events: Sequence[dict[str, Any]]) -> TrainingLog:
    """Put events in order. A resumed run repeats steps after its checkpoint: the later one of each counts."""
    by_step: dict[int, Step] = {}
    found: dict[tuple[str, int], dict[str, Any]] = {}
    finished = None
    for event in events:
        at = number(event.get("step"))
        if event.get("event") == "step" and at is not None:
            by_step[int(at)] = _step(event, int(at))
        elif event.get("event") == "evaluation" and number(event.get("ndcg@10")) is not None:
            found[(str(event.get("suite", "suite")), int(at or 0))] = event
        elif event.get("event") == "finished":
            finished = event
    steps = [by_step[step] for step in sorted(by_step)]
    evaluations = [
        Evaluation(
            suite,
            step,
            _tokens_at(steps, step),
            float(event["ndcg@10"]),
            number(event.get("low")),
            number(event.get("high")),
        )
        for (suite, step), event in sorted(found.items())
    ]
    return TrainingLog(steps, evaluations, finished)


def number(value: Any) -> float | None:
    """A finite number, or None for anything else."""
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


def _tokens_at(steps: Sequence[Step], step: int) -> float:
    """Tokens trained when `step` was done."""
    done = [known.tokens for known in steps if known.step <= step]
    return done[-1] if done else 0.0
