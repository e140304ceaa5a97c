"""The `scores` field of a row: a teacher's scores (a reranker's, for example) of the row's documents."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gemma4vec.data.rows.jsonl import json_type
from gemma4vec.data.rows.records import RejectError
from gemma4vec.reading.json_values import JsonError, loads_json
from gemma4vec.text.sanitize import sanitize

KEYS = ("pos", "neg", "teacher")


@dataclass(frozen=True)
class Scores:
    """A teacher's scores of a row's positives and negatives, in order; higher is more relevant."""

    pos: tuple[float, ...]
    neg: tuple[float, ...]
    teacher: str = ""

    def without(self, places: Iterable[int]) -> "Scores":
        """The scores without those of the negatives at these positions."""
        left_out = set(places)
        kept = tuple(score for place, score in enumerate(self.neg) if place not in left_out)
        return Scores(self.pos, kept, self.teacher)

    def as_object(self) -> dict[str, Any]:
        """The JSON object of the `scores` field."""
        return {"pos": list(self.pos), "neg": list(self.neg), "teacher": self.teacher}


def parse_scores(value: Any, positives: int, negatives: int) -> Scores | None:
    """Validate the scores of a row; None if it has none.

    Args:
        value: `{"pos": [...], "neg": [...], "teacher"?}`, or the same as a JSON string (a cell of a CSV file).
        positives: number of positives of the row.
        negatives: number of negatives of the row.

    Raises:
        RejectError: another type, a wrong number of scores, or a score that is not finite; names the field.
    """
    if value is None or value == "":
        return None
    if isinstance(value, str):
        value = _from_json(value)
    if not isinstance(value, dict):
        raise RejectError("scores", f'expected {{"pos": [...], "neg": [...], "teacher"}}, not {json_type(value)}')
    unknown = next((key for key in value if key not in KEYS), None)
    if unknown is not None:
        raise RejectError(f"scores.{unknown}", "unknown key; the keys of scores are pos, neg and teacher")
    teacher = value.get("teacher")
    if not isinstance(teacher, str | None):
        raise RejectError("scores.teacher", f"expected a string, not {json_type(teacher)}")
    pos = _numbers("pos", value.get("pos"), positives, "positives")
    neg = _numbers("neg", value.get("neg") or [], negatives, "negatives")
    return Scores(pos, neg, sanitize(teacher or ""))


def _numbers(name: str, value: Any, wanted: int, what: str) -> tuple[float, ...]:
    if not isinstance(value, list):
        raise RejectError(f"scores.{name}", f"expected a list of numbers, not {json_type(value)}")
    if len(value) != wanted:
        raise RejectError(f"scores.{name}", f"has {len(value)} scores, the row has {wanted} {what}")
    return tuple(_number(f"scores.{name}[{place}]", one) for place, one in enumerate(value))


def _number(name: str, value: Any) -> float:
    if type(value) not in (int, float):
        raise RejectError(name, f"expected a number, not {json_type(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise RejectError(name, f"{str(value)[:30]} is not a finite number")
    return number


def _from_json(text: str) -> Any:
    try:
        return loads_json(text, nonfinite=True, surrogates=True)
    except JsonError as fault:
        raise RejectError("scores", f"is {fault.reason}") from None


def scores_from_cells(cells: Sequence[Any], column: str, positives: int, present: Sequence[bool]) -> Any:
    """The `scores` value of a table's row, from an object or from numbers (positives first, then negatives).

    Args:
        cells: one cell with an object or a list, or one cell for each document.
        column: name of the first column; the teacher's name if the cells have no other.
        positives: number of positives of the row.
        present: for each negative column, whether its cell holds a document; scores of other cells are dropped.
    """
    value: Any = cells[0] if len(cells) == 1 else list(cells)
    if isinstance(value, str) and value.strip()[:1] in ("[", "{"):
        value = _from_json(value)
    if value is None or value == "":
        return None
    if not isinstance(value, dict):
        numbers = [_parsed(one) for one in (value if isinstance(value, list) else [value])]
        if len(numbers) != positives + len(present):
            total = positives + len(present)
            raise RejectError("scores", f"has {len(numbers)} scores, the row has {total} positives and negatives")
        value = {"pos": numbers[:positives], "neg": numbers[positives:], "teacher": column}
    neg = value.get("neg")
    if isinstance(neg, list) and len(neg) == len(present):
        value = value | {"neg": [one for one, keep in zip(neg, present, strict=True) if keep]}
    return value


def _parsed(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value
