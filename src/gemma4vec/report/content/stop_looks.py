"""The stop rule of a training and its looks, from `events.jsonl`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gemma4vec.report.content.training_log import number

_NUMBERS = ("score", "reference", "difference", "low", "high")


@dataclass(frozen=True)
class Look:
    """One look: scores of model and reference, and their difference with its interval."""

    place: str
    score: float
    reference: float
    difference: float
    low: float
    high: float
    stopped: bool


@dataclass(frozen=True)
class StopLooks:
    """The rule and its outcome in one sentence, and its looks in order."""

    sentence: str
    metric: str
    rows: list[Look]


def read_looks(events: Sequence[dict[str, Any]]) -> StopLooks | None:
    """Read the rule and its looks; None without a rule. If a resumed run repeated a look, the later one counts."""
    rules = {int(number(event.get("stage")) or 0): event for event in events if event.get("event") == "stop_rule"}
    if not rules:
        return None
    found = {
        (int(event["stage"]), int(event["step"])): event
        for event in events
        if event.get("event") == "look" and all(number(event.get(name)) is not None for name in _NUMBERS)
    }
    several = len({stage for stage, _ in found}) > 1
    rows = [
        Look(
            place=(f"stage {stage}, " if several else "") + f"step {step}",
            **{name: float(event[name]) for name in _NUMBERS},
            stopped=bool(event.get("stopped")),
        )
        for (stage, step), event in sorted(found.items())
    ]
    rule = rules[min(rules)]
    last = found[max(found)] if found else {}
    looks = len(rule.get("at_shares") or rule.get("at_steps") or ())
    ended = f"It ended the training: {last.get('reason')}." if last.get("stopped") else "It did not end the training."
    sentence = (
        f"Set before the run: {rule.get('metric')} on {rule.get('suite')} against {rule.get('reference')}, smallest "
        f"useful effect {float(rule.get('smallest_effect') or 0.0):+g}, {looks} look{'s' if looks != 1 else ''} that "
        f"share {float(rule.get('confidence') or 0.95):.0%} confidence. {ended}"
    )
    return StopLooks(sentence, str(rule.get("metric")), rows)
