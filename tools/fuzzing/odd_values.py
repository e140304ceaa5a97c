"""Odd values, and trees with something odd in them."""

import copy
import json
import math
from random import Random
from typing import Final

from fuzzing.inputs import Json

# Paths lead nowhere outside the working folder that could be written: those are names that a file may hold.
STRINGS: Final[tuple[str, ...]] = (
    "", " ", "\n", "\t", "-", "--json", "--", ".", "..", "/", "~", "../../escaped", "a/b", "x/../../../escaped",
    "/proc/self/mem", "/dev/null", "CON", "null", "true", "NaN", "inf", "1e999", "-1", "0x10", "1_000", "²", "٣",
    "½", "é", "e\u0301", "ß", "İ", "\u2028", "\x85", "\x0c", "\r", "\r\n", "\ufeff", "\u202e", "\u200b", "\x00",
    "\x1b[31m", "\ud800", "a\udcffb", "\U0001f4a9", "\U000e0001", "\uffff", "﷽" * 50, "x" * 300, "y" * 5000,
    "z" * 100_000, "${HOME}", "${suites}", "{text}", "{", "}", "{0}", "%s", "%", "<b>", "&amp;",
    "'; DROP TABLE runs; --", '"', "'", "`", "$(id)", "[red]", "[/]", "latest", "bm25", "recipe:", "source:dev",
    "bundled:", "bundled:none", "hub/none", "hub/none@main", "a@b@c", "mteb:", "loss:", "pycode", "2024-02-30",
    "1:30", "=", "a=b", ",", "#",
)  # fmt: skip
NUMBERS: Final[tuple[Json, ...]] = (
    0, -1, 1, 2, 3, 7, 100, 255, 2**15, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 2**64,
    10**30, 10**400, 0.0, -0.0, 0.5, 1.5, -0.1, 1e-12, 1e-320, 1e16, 1e300, math.nan, math.inf, -math.inf,
)  # fmt: skip
SMALL: Final[tuple[Json, ...]] = (
    0,
    -1,
    1,
    2,
    3,
    0.0,
    -0.0,
    0.5,
    1.5,
    -0.1,
    1e-12,
    1e-320,
    math.nan,
    -math.inf,
    -(2**63),
)
EMPTY: Final[tuple[Json, ...]] = ([], {}, [[]], [None], {"": None}, [{}], {"a": {"b": {}}})
DEEP: Final = 3000
# A large value of these makes work, not an error: they stay small where a command would do the work.
SIZES: Final = frozenset((
    "steps", "rows", "tokens", "minutes", "accumulate", "epochs", "seconds", "rank", "widths", "latents", "heads",
    "max_tokens", "row_tokens", "tokens_per_forward", "hidden_size", "intermediate_size", "num_hidden_layers",
    "vocab_size", "num_attention_heads", "num_key_value_heads", "head_dim",
))  # fmt: skip


def scalar(draw: Random, numbers: tuple[Json, ...] = NUMBERS) -> Json:
    """A value that is no list and no mapping."""
    kind = draw.random()
    if kind < 0.45:
        return draw.choice(STRINGS)
    if kind < 0.9:
        return draw.choice(numbers)
    return draw.choice((None, True, False))


def value(draw: Random, numbers: tuple[Json, ...] = NUMBERS) -> Json:
    """Any odd value."""
    kind = draw.random()
    if kind < 0.75:
        return scalar(draw, numbers)
    if kind < 0.85:
        return copy.deepcopy(draw.choice(EMPTY))  # it is changed further
    if kind < 0.95:
        return [scalar(draw, numbers) for _ in range(draw.randrange(1, 4))]
    return {str(draw.choice(STRINGS)): scalar(draw, numbers)}


def nested(depth: int, mapping: bool) -> str:
    """JSON, and so YAML, of this depth: written as text, since no writer goes that deep."""
    return '{"a":' * depth + "1" + "}" * depth if mapping else "[" * depth + "]" * depth


Place = tuple[str | int, ...]


def places(tree: Json, at: Place = ()) -> list[Place]:
    """The way to everything in a tree."""
    found: list[Place] = []
    if isinstance(tree, dict):
        for key, item in tree.items():
            found += [(*at, key), *places(item, (*at, key))]
    elif isinstance(tree, list):
        for index, item in enumerate(tree[:40]):
            found += [(*at, index), *places(item, (*at, index))]
    return found


def changed(tree: Json, draw: Random, working: bool = False) -> Json:
    """A copy with one to three odd places.

    Args:
        working: a command will do the work that the tree asks for, so sizes stay small.
    """
    made = copy.deepcopy(tree)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        found = places(made)
        if not found:
            return value(draw)
        made = _change(made, draw.choice(found), draw, working)
    return made


def _change(tree: Json, at: Place, draw: Random, working: bool) -> Json:
    parent: Json = tree
    for step in at[:-1]:
        parent = parent[step]  # type: ignore[index, call-overload]
    key = at[-1]
    numbers = SMALL if working and any(step in SIZES for step in at) else NUMBERS
    how = draw.random()
    if isinstance(parent, list) and isinstance(key, int):
        if how < 0.2:
            del parent[key]
        elif how < 0.35:
            parent.insert(key, copy.deepcopy(parent[key]))
        else:
            parent[key] = _other(parent[key], draw, numbers)
    elif isinstance(parent, dict) and isinstance(key, str):
        if how < 0.2:
            del parent[key]
        elif how < 0.3:
            parent[str(draw.choice((*STRINGS, *parent)))] = parent.pop(key)
        elif how < 0.4:
            parent[str(draw.choice(STRINGS))] = value(draw, numbers)
        else:
            parent[key] = _other(parent[key], draw, numbers)
    return tree


def _other(before: Json, draw: Random, numbers: tuple[Json, ...]) -> Json:
    """A value in place of another, often one of its own type, which gets further."""
    if draw.random() < 0.5:
        if isinstance(before, bool):
            return not before
        if isinstance(before, int | float):
            return draw.choice(numbers)
        if isinstance(before, str):
            return draw.choice((draw.choice(STRINGS), before + str(draw.choice(STRINGS)), before.upper(), before[:-1]))
        if isinstance(before, list):
            lists: tuple[list[Json], ...] = ([], before[::-1], before * 2, before[:1], [before])
            return draw.choice(lists)
    others: tuple[Json, ...] = (value(draw, numbers), str(before), [before], {"a": before})
    return draw.choice(others)


def as_json(tree: Json, draw: Random, indent: int | None = None) -> str:
    """A tree as JSON text, now and then with a key twice or a value too deep to read."""
    text = json.dumps(tree, ensure_ascii=draw.random() < 0.7, indent=indent)
    how = draw.random()
    if how < 0.05 and isinstance(tree, dict) and tree:
        key, item = draw.choice(list(tree.items()))
        text = "{" + f"{json.dumps(key)}: {json.dumps(item)}, " + text.lstrip()[1:]
    elif how < 0.08:
        text = (
            text[: text.rfind("}")]
            + f', "deep": {nested(draw.choice((60, DEEP, 60 * DEEP)), draw.random() < 0.5)}'
            + "}"
        )
    elif how < 0.1:
        text = text[: text.rfind("}")] + ', "long": 1' + "0" * draw.choice((50, 4301, 6000)) + "}"
    return text


def as_bytes(text: str) -> bytes:
    """UTF-8; what UTF-8 does not have stays as the bytes that UTF-8 would have used."""
    return text.encode("utf-8", "surrogatepass")
