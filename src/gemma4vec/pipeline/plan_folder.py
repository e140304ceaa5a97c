"""The folder of work with many steps (a matrix, a plan): held by one process, and what changed since it began."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from gemma4vec.errors import InputError
from gemma4vec.files import check_writable, disk_errors


@contextlib.contextmanager
def lock_folder(path: Path, what: str) -> Iterator[None]:
    """Make and lock the folder within a `with` block: a second process would do the same work.

    Args:
        path: the folder.
        what: uses it, for the error: "matrix" or "plan".

    Raises:
        InputError: another process holds it. WorkError: it cannot be written.
    """
    check_writable(path)
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path / ".lock", timeout=0):
            yield
    except Timeout as error:
        raise InputError(f"{path} is in use by a running {what}; wait for it, or use another --out") from error


def first_difference(before: Any, now: Any) -> str:
    """Say where two nested values first differ: `key: OLD before, NEW now`."""
    old, new = _flat(before), _flat(now)
    key = next(key for key in [*new, *old] if old.get(key) != new.get(key))
    return f"{key}: {shorten(old.get(key))} before, {shorten(new.get(key))} now"


def shorten(value: Any) -> str:
    """A JSON value as text, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else text[:117] + "..."


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings and lists as one mapping with dotted names."""
    if isinstance(value, dict | list) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {key: leaf for name, item in items for key, leaf in _flat(item, f"{prefix}.{name}").items()}
    return {prefix.removeprefix("."): value}
