"""What a score must never be shown without: a ranking that means nothing, a further look, queries that repeat."""

from collections import Counter
from collections.abc import Hashable, Iterable
from typing import Any

from gemma4vec.data.suites.kinds import name_items
from gemma4vec.evaluation.results.result import Result

REPEATED = "queries_repeated"
"""Key of a task's quality: number of items whose text an earlier item of the task already has."""


def count_repeated(texts: Iterable[Hashable]) -> int:
    """Count the texts that an earlier one equals, apart from white space."""
    return sum(count - 1 for count in Counter(_plain(text) for text in texts).values())


def quality_of(result: Result) -> dict[str, Any]:
    """Return the signs of unreliable scores, under the name that the result's kind has for them."""
    return result.settings.get("ranking") or result.settings.get("quality") or {}


def result_marks(result: Result) -> list[str]:
    """Describe each mark in one sentence, without a full stop."""
    return [*model_marks(result), *suite_marks(result)]


def model_marks(result: Result) -> list[str]:
    """The marks of this model's score: a degenerate ranking, a further look at a final suite."""
    marks = []
    if quality_of(result).get("degenerate"):
        marks.append("degenerate: most of its scores are equal, so its ranking means nothing")
    if reason := result.settings.get("look_again"):
        marks.append(f"a further look at a final suite, since: {' '.join(str(reason).split())}")
    return marks


def suite_marks(result: Result) -> list[str]:
    """The marks of every score on these items: texts that repeat."""
    repeated, total = quality_of(result).get(REPEATED) or 0, len(result.keys)
    if not repeated:
        return []
    return [
        f"{repeated:,} of {total:,} {name_items(result.kind, total)} repeat the text of another: they are no evidence "
        "of their own, so intervals and p-values are smaller than they should be"
    ]


def _plain(text: Hashable) -> Hashable:
    if isinstance(text, str):
        return " ".join(text.split())
    return tuple(_plain(part) for part in text) if isinstance(text, tuple) else text
