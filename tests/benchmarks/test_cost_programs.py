"""The programs about cost: what was measured is not measured again, and what is made of the numbers."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest


def test_a_setting_is_measured_once_for_the_same_dependencies(tmp_path: Path) -> None:
    from benchmarks.shared.saved_measurements import SavedMeasurements

    calls: list[str] = []

    def measure(name: str) -> dict[str, Any]:
        calls.append(name)
        return {"seconds": 1.5, "at": (1, 2)}

    kept = SavedMeasurements("b", {"steps": 2}, folder=tmp_path)
    assert kept.take("one", lambda: measure("one")) == {"seconds": 1.5, "at": [1, 2]}
    assert (
        SavedMeasurements("b", {"steps": 2}, folder=tmp_path).take("one", lambda: measure("again"))
        == kept.settings["one"]
    )
    SavedMeasurements("b", {"steps": 2}, folder=tmp_path).take("two", lambda: measure("two"))
    assert calls == ["one", "two"]
    SavedMeasurements("b", {"steps": 3}, folder=tmp_path).take("one", lambda: measure("other steps"))
    SavedMeasurements("b", {"steps": 3}, fresh=True, folder=tmp_path).take("one", lambda: measure("fresh"))
    assert calls[2:] == ["other steps", "fresh"]


@pytest.mark.parametrize("power", [-1.0, 0.0, 0.5, 2.0])
def test_the_exponent_of_a_curve_is_its_slope(power: float) -> None:
    from benchmarks.speed.cost_growth import exponent

    points = [{"at": at, "seconds_of_one": 3.0 * max(at, 1) ** power} for at in (0, 2, 8, 64)]
    found = exponent(points)
    assert found is not None and math.isclose(found, power, abs_tol=1e-9)
    assert exponent(points[:2]) is None


def test_made_rows_have_texts_of_one_length() -> None:
    from benchmarks.speed.cost_growth import random_rows

    rows = random_rows(3, 2, 7, 100)
    texts = [text for row in rows for text in (row.query, *(d.text for d in (*row.pos, *row.neg)))]
    assert len(texts) == 3 * 4 and {len(text.ids) for text in texts} == {7}
    assert len(set(texts)) == len(texts) and max(max(text.ids) for text in texts) < 100


def test_bytes_a_row_are_between_the_smallest_and_the_largest_batch() -> None:
    from benchmarks.speed.memory_growth import summarised

    sides = {"ours": 10, "sentence-transformers": 30}
    found = [
        {"side": side, "rows": rows, "micro_rows": None, "peak_bytes": 1000 + each * rows}
        for rows in (8, 32, 128)
        for side, each in sides.items()
    ]
    growth = summarised(found)
    assert [one["bytes_a_row"] for one in growth] == [10.0, 30.0]
    assert np.isclose(growth[1]["peak_ratio"], (1000 + 30 * 128) / (1000 + 30 * 8))
