"""Slices as rules on attributes: `overlap <= 0.3 and digits is yes`.

A rule says of any query whether it belongs, also of one that nobody has seen and of a row of training data.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from gemma4vec.data.ngrams.language import UNDETERMINED
from gemma4vec.errors import InputError
from gemma4vec.inspection.attributes import ATTRIBUTES, Value

Relation = Literal["<=", ">", "is"]
YES, NO = "yes", "no"
TOPIC = "topic"  # the attribute whose values are names of topics in a frozen space (`topics.space`)
_CONDITION = re.compile(r"\s*(\w+)\s*(<=|>|is)\s*(.+?)\s*")


@dataclass(frozen=True)
class Condition:
    """An attribute and the values that it may have; a missing value never fits.

    `value` is a number for `<=` and `>`; for `is` a word, or yes or no.
    """

    attribute: str
    relation: Relation
    value: float | str

    def fits(self, found: Value) -> bool:
        """Whether one value fits."""
        if found is None:
            return False
        if self.relation == "is":
            return (YES if found else NO) == self.value if isinstance(found, bool) else found == self.value
        if isinstance(found, str):
            return False
        return found <= float(self.value) if self.relation == "<=" else found > float(self.value)

    def __str__(self) -> str:
        shown = f"{self.value:.6g}" if isinstance(self.value, float) else self.value
        return f"{self.attribute} {self.relation} {shown}"

    def short(self) -> str:
        """As a person reads it: a topic by its words, everything else as a rule writes it."""
        is_topic = self.attribute == TOPIC and isinstance(self.value, str)
        return f"topic: {topic_words(str(self.value))}" if is_topic else str(self)


@dataclass(frozen=True)
class Predicate:
    """Conditions that must all hold."""

    conditions: tuple[Condition, ...]

    def fits(self, values: Mapping[str, Value]) -> bool:
        """Whether a case with these values of attributes belongs to the slice."""
        return all(one.fits(values.get(one.attribute)) for one in self.conditions)

    def mask(self, values: Mapping[str, Sequence[Value]]) -> npt.NDArray[np.bool_]:
        """Whether each case belongs, bool[N], from columns of values.

        Raises:
            InputError: an attribute that the columns lack.
        """
        missing = [one.attribute for one in self.conditions if one.attribute not in values]
        if missing:
            raise InputError(f"the slice '{self}' needs the attribute {missing[0]}, which is not stored; inspect again")
        columns = [(one, values[one.attribute]) for one in self.conditions]
        return np.all([[one.fits(value) for value in column] for one, column in columns], axis=0)

    def __str__(self) -> str:
        return " and ".join(map(str, self.conditions))

    def short(self) -> str:
        """The rule as a person reads it; `str` writes it as commands and addresses take it."""
        return " and ".join(one.short() for one in self.conditions)

    def words(self) -> str:
        """The rule with the attributes in words."""
        parts = []
        for one in self.conditions:
            known = ATTRIBUTES.get(one.attribute)
            what = known.words if known is not None else one.attribute
            if known is not None and known.kind == "flag":
                parts.append(what if one.value == YES else f"not: {what}")
            else:
                relation = {"<=": "at most", ">": "over", "is": "is"}[one.relation]
                value = "unsure" if one.value == UNDETERMINED else one.value
                if one.attribute == TOPIC and isinstance(value, str):
                    value = topic_words(value)
                parts.append(f"{what} {relation} {f'{value:.3g}' if isinstance(value, float) else value}")
        return ", ".join(parts)


def topic_words(name: str) -> str:
    """The words of a topic's name in a rule: `ship, harbor, sail` of `2-ship-harbor-sail@1a2b3c4d5e6f`."""
    return ", ".join(name.partition("@")[0].split("-")[1:]) or name


def readable_rule(text: str) -> str:
    """A stored rule as `Predicate.short` says it; one that cannot be read stays as it is."""
    try:
        return parse_predicate(text).short()
    except InputError:
        return text


def rule_in_words(text: str) -> str:
    """A stored rule as `Predicate.words` says it; one that cannot be read stays as it is."""
    try:
        return parse_predicate(text).words()
    except InputError:
        return text


def parse_predicate(text: str) -> Predicate:
    """Read a rule as `str` writes it.

    Raises:
        InputError: it is no rule, or names an unknown attribute.
    """
    conditions = []
    for part in text.split(" and "):
        found = _CONDITION.fullmatch(part)
        if found is None:
            raise InputError(f"the slice '{text}' is no rule; write it as: overlap <= 0.3 and digits is yes")
        name, relation, value = found[1], found[2], found[3]
        if name not in ATTRIBUTES:
            raise InputError(f"the slice '{text}' names {name}; known attributes are {', '.join(ATTRIBUTES)}")
        conditions.append(_condition(text, name, relation, value))
    return Predicate(tuple(conditions))


def _condition(text: str, name: str, relation: str, value: str) -> Condition:
    if (ATTRIBUTES[name].kind == "number") is (relation == "is"):
        needed = "<= or >" if ATTRIBUTES[name].kind == "number" else "is"
        raise InputError(f"the slice '{text}': {name} needs {needed}")
    if relation == "is":
        if ATTRIBUTES[name].kind == "flag" and value not in (YES, NO):
            raise InputError(f"the slice '{text}': {name} is {YES} or {NO}")
        return Condition(name, "is", value)
    try:
        number = float(value)
    except ValueError as error:
        raise InputError(f"the slice '{text}': {value} is not a number") from error
    if not math.isfinite(number):
        raise InputError(f"the slice '{text}': {value} is not a finite number")
    return Condition(name, "<=" if relation == "<=" else ">", number)


def candidate_slices(
    values: Mapping[str, Sequence[Value]], *, smallest: int, quantiles: Sequence[float] = (0.2, 0.5, 0.8)
) -> list[Predicate]:
    """Rules with one condition that have at least `smallest` cases inside and outside.

    Numbers are cut at quantiles of the given cases, words and flags give one rule each. Of rules with the same cases
    the first is kept.

    Args:
        values: attribute -> its value for each case.
        smallest: cases on either side.
        quantiles: at which numbers are cut.
    """
    rules: list[Predicate] = []
    for name, column in values.items():
        known = ATTRIBUTES.get(name)
        present = [value for value in column if value is not None]
        if known is None or not present:
            continue
        if known.kind == "number":
            numbers = [float(value) for value in present if not isinstance(value, str)]
            cuts = sorted({round_up(float(cut)) for cut in np.quantile(numbers, quantiles, method="lower")})
            conditions = [Condition(name, relation, cut) for cut in cuts for relation in _RELATIONS]
        elif known.kind == "flag":
            conditions = [Condition(name, "is", word) for word in (YES, NO)]
        else:
            conditions = [Condition(name, "is", str(word)) for word in sorted({str(value) for value in present})]
        rules += [Predicate((one,)) for one in conditions]
    kept: dict[bytes, Predicate] = {}
    for rule in rules:
        mask_N = rule.mask(values)
        if smallest <= int(mask_N.sum()) <= len(mask_N) - smallest:
            kept.setdefault(mask_N.tobytes(), rule)
    return list(kept.values())


def round_up(value: float, digits: int = 4) -> float:
    """The next number of this many digits, so that a case at a cut stays below it and a person can type the cut."""
    if value == 0.0:
        return 0.0
    scale = 10.0 ** (digits - 1 - math.floor(math.log10(abs(value))))
    rounded = float(f"{value:.{digits}g}")
    return rounded if rounded >= value else math.ceil(value * scale) / scale


_RELATIONS: tuple[Relation, ...] = ("<=", ">")
