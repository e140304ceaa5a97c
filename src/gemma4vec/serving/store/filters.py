"""Filters on the scalar fields of rows, the same in every store.

    year >= 2020 and language = "de" and checked != true and kind in ("faq", "guide")

Comparisons are joined by `and`. Numbers take = != < <= > >= and `in`, text takes = != and `in`, true and false take =
and !=. A row without the field matches no comparison, also not !=, as in SQL. Stores compare numbers as doubles, so
whole numbers lie within 2^53.

Each store translates the parsed comparisons into its own typed expression; the text of a filter goes to none of them.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from gemma4vec.errors import InputError

FieldType = Literal["text", "int", "float", "bool"]
Value = str | int | float | bool
LARGEST_INT = 2**53
OPERATORS = ("=", "!=", "<", "<=", ">", ">=", "in")
_ORDER = {"<", "<=", ">", ">="}
_TOKEN = re.compile(
    r"""\s*(?:
    (?P<text>"(?:[^"\\]|\\.)*")
  | (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
  | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<operator>!=|<=|>=|=|<|>)
  | (?P<mark>[(),])
    )""",
    re.VERBOSE,
)
EXAMPLE = 'such as: year >= 2020 and language = "de"'


@dataclass(frozen=True)
class Comparison:
    """One condition. `values` has one value, or several for `in`; its numbers are finite."""

    field: str
    operator: str
    values: tuple[Value, ...]

    @property
    def value(self) -> Value:
        """The value of every operator except `in`."""
        return self.values[0]


@dataclass(frozen=True)
class Filter:
    """Comparisons that a row must all satisfy."""

    comparisons: tuple[Comparison, ...]

    def check(self, fields: Mapping[str, FieldType]) -> None:
        """Check that a store with `fields` can answer the filter.

        Raises:
            InputError: an unknown field, or a value or operator that the field's type does not have.
        """
        for comparison in self.comparisons:
            found = fields.get(comparison.field)
            if found is None:
                known = ", ".join(sorted(fields)) or "none"
                raise InputError(f"filter: the store has no field {comparison.field!r}; its fields are: {known}")
            if comparison.operator in _ORDER and found not in ("int", "float"):
                raise InputError(
                    f"filter: {comparison.field} is {found}, which has no order in every store; use =, != or in"
                )
            for value in comparison.values:
                if not _fits(value, found):
                    raise InputError(f"filter: {comparison.field} is {found}, but {value!r} is not")

    def mask(self, table: pa.Table) -> pa.ChunkedArray:
        """Return bool[M]: which rows of `table` match. The table has the filter's fields as columns."""
        found = None
        for comparison in self.comparisons:
            one = pc.fill_null(_compare(table[comparison.field], comparison), False)
            found = one if found is None else pc.and_(found, one)
        return pa.chunked_array([pa.repeat(True, table.num_rows)]) if found is None else found


def parse_filter(text: str) -> Filter:
    """Parse the text of a filter.

    Raises:
        InputError: it is not a filter; the message has the place.
    """
    tokens = _split(text)
    comparisons: list[Comparison] = []
    place = 0
    while True:
        comparison, place = _parse_comparison(text, tokens, place)
        comparisons.append(comparison)
        if place == len(tokens):
            return Filter(tuple(comparisons))
        if tokens[place][0] != "word" or tokens[place][1].lower() != "and":
            raise InputError(f"filter {_shown(text)}: expected `and` before {tokens[place][1]!r}, {EXAMPLE}")
        place += 1


def _split(text: str) -> list[tuple[str, str]]:
    """Return (kind, text) of each token."""
    tokens, at = [], 0
    while text[at:].strip():
        found = _TOKEN.match(text, at)
        if found is None or found.lastgroup is None:
            raise InputError(f"filter {_shown(text)}: {text[at:].strip()[:20]!r} is not part of a filter, {EXAMPLE}")
        tokens.append((found.lastgroup, found[found.lastgroup]))
        at = found.end()
    return tokens


def _parse_comparison(text: str, tokens: list[tuple[str, str]], place: int) -> tuple[Comparison, int]:
    """Parse the comparison that starts at `place`; return it and the place after it."""
    wrong = InputError(f"filter {_shown(text)}: expected a field, an operator and a value, {EXAMPLE}")
    if place + 2 >= len(tokens) or tokens[place][0] != "word":
        raise wrong
    field, (kind, operator) = tokens[place][1], tokens[place + 1]
    if kind == "operator":
        return Comparison(field, operator, (_value(text, *tokens[place + 2]),)), place + 3
    if kind != "word" or operator.lower() != "in" or tokens[place + 2][1] != "(":
        raise wrong
    values, place = [], place + 3
    while place + 1 < len(tokens):
        values.append(_value(text, *tokens[place]))
        mark = tokens[place + 1][1]
        place += 2
        if mark == ")":
            return Comparison(field, "in", tuple(values)), place
        if mark != ",":
            break
    raise InputError(f'filter {_shown(text)}: write a list as: {field} in ("one", "two")')


def _value(text: str, kind: str, token: str) -> Value:
    if kind == "text":
        try:
            value = json.loads(token, strict=False)
            value.encode()
            return str(value)
        except ValueError as error:
            raise InputError(f"filter {_shown(text)}: {token[:40]} is no JSON text ({error})") from error
    if kind == "number":
        number: int | float = int(token) if re.fullmatch(r"[+-]?\d{1,17}", token) else float(token)
        if not math.isfinite(number) or (isinstance(number, int) and abs(number) > LARGEST_INT):
            raise InputError(f"filter {_shown(text)}: {token[:40]} is outside of ±2^53; use a smaller number")
        return number
    if kind == "word" and token.lower() in ("true", "false"):
        return token.lower() == "true"
    raise InputError(f"filter {_shown(text)}: {token[:40]!r} is no value; quote text with double quotes, {EXAMPLE}")


def _fits(value: Value, field: FieldType) -> bool:
    if isinstance(value, bool) or field == "bool":
        return isinstance(value, bool) and field == "bool"
    if isinstance(value, str) or field == "text":
        return isinstance(value, str) and field == "text"
    return field == "float" or isinstance(value, int)


def _compare(column: pa.ChunkedArray, comparison: Comparison) -> pa.ChunkedArray:
    """Return bool[M], null where the column is null."""
    if comparison.operator == "in":
        members = pc.is_in(column, value_set=pa.array(list(comparison.values), type=column.type))
        return pc.if_else(pc.is_valid(column), members, pa.scalar(None, pa.bool_()))
    compare = {
        "=": pc.equal,
        "!=": pc.not_equal,
        "<": pc.less,
        "<=": pc.less_equal,
        ">": pc.greater,
        ">=": pc.greater_equal,
    }[comparison.operator]
    return compare(column, pa.scalar(comparison.value, type=column.type))


def _shown(text: str) -> str:
    one_line = " ".join(text.split())
    return repr(one_line if len(one_line) <= 60 else one_line[:57] + "...")
