"""How much of a stage is left, by hand."""

from typing import Any

import pytest

from gemma4vec.report.content.time_left import time_left


def step(number: int, **fields: Any) -> dict[str, Any]:
    return {"event": "step", "step": number, "stage": 0, "seconds": 2.0 * number, "rows": 8 * number, **fields}


@pytest.mark.parametrize(
    ("budget", "extra", "share", "seconds"),
    [
        ({"steps": 40}, [], 0.25, 60.0),
        ({"rows": 160}, [], 0.5, 20.0),
        ({"tokens": 400}, [], None, None),  # the step says no tokens
        ({"minutes": 3}, [], None, None),  # nobody knows yet how many steps these are
        ({"minutes": 3}, [{"event": "budget", "stage": 0, "steps": 20}], 0.5, 20.0),
        ({"steps": 5}, [], 1.0, 0.0),
    ],
)
def test_the_rest_goes_on_at_the_mean_speed(
    budget: dict[str, int], extra: list[dict[str, Any]], share: float | None, seconds: float | None
) -> None:
    found = time_left([*extra, step(9), step(10)], {"stages": [{"budget": budget}, {}]})
    assert found is not None and (found.stage, found.stages, found.step) == (0, 2, 10)
    assert (found.share, found.seconds) == (share, seconds)


def test_damaged_parts_are_unknown() -> None:
    assert time_left([], {}) is None and time_left([{"event": "step"}], {}) is None
    for recipe in ({}, {"stages": "x"}, {"stages": [None]}, {"stages": [{"budget": []}]}):
        found = time_left([step(3, seconds=None)], recipe)
        assert found is not None and found.seconds is None and found.share is None
