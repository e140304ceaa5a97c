"""What a teacher, such as a reranker, says of a row's documents: its `scores` field."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gemma4vec.data.rows.jsonl import kind_of
from gemma4vec.data.rows.records import RejectError

KEYS = ("pos", "neg", "teacher")


@dataclass(frozen=True)
class Scores:
    """A teacher's scores of a row's positives and negatives, in their order; the higher, the better they answer."""

    pos: tuple[float, ...]
    neg: tuple[float, ...]
    teacher: str = ""

    def without(self, places: Iterable[int]) -> "Scores":
        """Without the negatives at these places."""
        left_out = set(places)
        kept = tuple(score for place, score in enumerate(self.neg) if place not in left_out)
        return Scores(self.pos, kept, self.teacher)

    def as_object(self) -> dict[str, Any]:
        """As it stands in a row."""
        return {"pos": list(self.pos), "neg": list(self.neg), "teacher": self.teacher}


def read_scores(value: Any, positives: int, negatives: int) -> Scores | None:
    """The scores of a row with so many positives and negatives; None where it has none.

    `value` is `{"pos": [...], "neg": [...], "teacher"?}`, or that as JSON, since a cell of a CSV file holds text.

    Raises:
        RejectError: anything else, other counts, a score that is no finite number; names the field.
    """
    if value is None or value == "":
        return None
    if isinstance(value, str):
        value = _from_json(value)
    if not isinstance(value, dict):
        raise RejectError("scores", f'{{"pos": [...], "neg": [...], "teacher"}} is needed, not {kind_of(value)}')
    unknown = next((key for key in value if key not in KEYS), None)
    if unknown is not None:
        raise RejectError(f"scores.{unknown}", "there is no such key; scores have pos, neg and teacher")
    teacher = value.get("teacher")
    if not isinstance(teacher, str | None):
        raise RejectError("scores.teacher", f"a string is needed, not {kind_of(teacher)}")
    pos = _numbers("pos", value.get("pos"), positives, "positives")
    return Scores(pos, _numbers("neg", value.get("neg") or [], negatives, "negatives"), teacher or "")


def _numbers(name: str, value: Any, wanted: int, what: str) -> tuple[float, ...]:
    if not isinstance(value, list):
        raise RejectError(f"scores.{name}", f"a list of numbers is needed, not {kind_of(value)}")
    if len(value) != wanted:
        raise RejectError(f"scores.{name}", f"has {len(value)} scores, the row has {wanted} {what}")
    return tuple(_number(f"scores.{name}[{place}]", one) for place, one in enumerate(value))


def _number(name: str, value: Any) -> float:
    if type(value) not in (int, float):
        raise RejectError(name, f"a number is needed, not {kind_of(value)}")
    if not math.isfinite(value):
        raise RejectError(name, f"{value} is no finite number")
    return float(value)


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise RejectError("scores", f"is not JSON ({error})") from error


def scores_of_cells(cells: Sequence[Any], column: str, positives: int, kept: Sequence[bool]) -> Any:
    """A table's cells of scores as a row's `scores`: an object, or numbers of the positives and then of the negatives.

    Args:
        cells: one cell that holds all, as an object or a list, or one for each document.
        column: what the first is called; the teacher's name, where there is no other.
        positives: how many positives the row has.
        kept: of each negative that the table has a cell for, whether the row has it.
    """
    value: Any = cells[0] if len(cells) == 1 else list(cells)
    if isinstance(value, str) and value.strip()[:1] in ("[", "{"):
        value = _from_json(value)
    if value is None or value == "":
        return None
    if not isinstance(value, dict):
        numbers = [_parsed(one) for one in (value if isinstance(value, list) else [value])]
        if len(numbers) != positives + len(kept):
            total = positives + len(kept)
            raise RejectError("scores", f"has {len(numbers)} scores, the row has {total} positives and negatives")
        value = {"pos": numbers[:positives], "neg": numbers[positives:], "teacher": column}
    neg = value.get("neg")
    if isinstance(neg, list) and len(neg) == len(kept):
        value = value | {"neg": [one for one, keep in zip(neg, kept, strict=True) if keep]}
    return value


def _parsed(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value
