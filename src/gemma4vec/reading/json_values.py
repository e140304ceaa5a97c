"""The one reader of JSON: every way to fail is one reason with its line, never a traceback.

Python's own reader accepts NaN, lone surrogates and a key twice (the last one counts), stops with `RecursionError` at
deep nesting, and returns integers that no float can hold.
"""

import json
import math
import re
from functools import cache
from pathlib import Path
from typing import Any

from gemma4vec.errors import InputError

MOST_BYTES = 2**28  # of a file
MOST_DEPTH = 100
MOST_DIGITS = 300  # a float ends at 1.8e308
_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")


class JsonError(ValueError):
    """Why a text is no JSON value; `line` counts from 1, None where the fault has no place."""

    def __init__(self, reason: str, line: int | None = None):
        super().__init__(reason)
        self.reason, self.line = reason, line


def loads_json(text: str | bytes, *, nonfinite: bool = False, surrogates: bool = False, twice: bool = False) -> Any:
    """The value of a JSON text. A byte-order mark of UTF-8 is skipped.

    Args:
        text: one value; bytes are UTF-8.
        nonfinite: accept NaN, infinities and numbers beyond a float, as Python writes and reads them.
        surrogates: accept lone surrogates in strings, which cannot be encoded.
        twice: accept a key twice in one object; the last one counts.

    Raises:
        JsonError: everything else: not UTF-8, bad syntax, nesting below 100 levels, integers of over 300 digits.
    """
    decoded = _decode(text) if isinstance(text, bytes) else text.removeprefix("\ufeff")
    try:
        value = _decoder(nonfinite, twice).decode(decoded)
    except json.JSONDecodeError as error:
        empty = not decoded.strip()
        raise JsonError("empty" if empty else f"not JSON ({error})", None if empty else error.lineno) from None
    except RecursionError:
        raise _too_deep() from None
    if decoded.count("[") + decoded.count("{") > MOST_DEPTH:
        _check_depth(value)
    if not surrogates and (_ESCAPED_SURROGATE.search(decoded) or not _encodable(decoded)):
        _check_surrogates(value)
    return value


def load_json(path: Path, *, nonfinite: bool = False, surrogates: bool = False, twice: bool = False) -> Any:
    """As `loads_json`, from a file.

    Raises:
        OSError: the file cannot be read.
        JsonError: it is not JSON.
    """
    with path.open("rb") as stream:
        raw = stream.read(MOST_BYTES + 1)  # not its size, which a device does not have
    if len(raw) > MOST_BYTES:
        raise JsonError(f"longer than {MOST_BYTES // 2**20} MiB")
    return loads_json(raw, nonfinite=nonfinite, surrogates=surrogates, twice=twice)


def load_foreign_json(path: Path) -> Any:
    """As `load_json`, for files of other libraries, which may hold what Python's reader accepts."""
    return load_json(path, nonfinite=True, surrogates=True, twice=True)


def load_own_json(path: Path) -> Any:
    """As `load_json`, for files of ours, in which a broken model's scores are NaN."""
    return load_json(path, nonfinite=True)


def read_json(path: Path, what: str, advice: str, *, foreign: bool = False) -> Any:
    """As `load_json`, for a file that a person named; `what` names its kind and `advice` says what to do.

    Raises:
        InputError: the file is missing, cannot be read or is not JSON, with its line.
    """
    try:
        return load_foreign_json(path) if foreign else load_json(path)
    except JsonError as fault:
        raise InputError(f"{what} {path}{_place(fault)}: {fault.reason}; {advice}") from None
    except OSError as error:
        raise InputError(f"{what} {path} cannot be read ({error.strerror or error}); {advice}") from error


def _place(fault: JsonError) -> str:
    return f" line {fault.line}" if fault.line is not None else ""


def _decode(raw: bytes) -> str:
    if raw.startswith(_WIDE_MARKS):
        raise JsonError("not UTF-8 at byte 0 (is it UTF-16?)", 1)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise JsonError(f"not UTF-8 at byte {error.start}", line) from None


@cache
def _decoder(nonfinite: bool, twice: bool) -> json.JSONDecoder:
    """A decoder; made once, since making one takes longer than reading a short line."""
    return json.JSONDecoder(
        parse_int=_integer,
        parse_float=None if nonfinite else _finite,
        parse_constant=None if nonfinite else _constant,
        object_pairs_hook=None if twice else _object,
    )


def _integer(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise JsonError(f"an integer of {len(digits)} digits; at most {MOST_DIGITS} can be read")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise JsonError(f"the number {digits[:40]} is beyond a float")
    return value


def _constant(name: str) -> float:
    raise JsonError(f"{name} is not JSON; write a number or null")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        raise JsonError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} is given twice; remove one")
    return value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MOST_DEPTH + 1):
        level = [item for one in level for item in _items(one)]
        if not level:
            return
    raise _too_deep()


def _too_deep() -> JsonError:
    return JsonError(f"not JSON that can be read (nested too deeply: over {MOST_DEPTH} levels)")


def _check_surrogates(value: Any) -> None:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        texts = [one] if isinstance(one, str) else list(one) if isinstance(one, dict) else []
        found = next((match[0] for text in texts if (match := _SURROGATE.search(text))), None)
        if found is not None:
            raise JsonError(f"a lone surrogate (\\u{ord(found):04x}), half a character; remove it")
        waiting.extend(_items(one))


def _items(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []


def _encodable(text: str) -> bool:
    return text.isascii() or _SURROGATE.search(text) is None
