"""Cases that a helper program runs: those that the selected tests ask for, some of them only in `make slow`."""

from collections.abc import Iterable
from typing import Any

import pytest


def with_slow(names: Iterable[str], slow: Iterable[str]) -> list[Any]:
    """Parameters of a test; those in `slow` are marked so."""
    return [pytest.param(name, marks=pytest.mark.slow) if name in slow else name for name in names]


def asked_for(request: pytest.FixtureRequest, argument: str) -> set[str]:
    """The values that `argument` has in the selected tests of the module that asks."""
    items = [item for item in request.session.items if item.path == request.path]
    given = [getattr(getattr(item, "callspec", None), "params", {}) for item in items]
    return {params[argument] for params in given if argument in params}
