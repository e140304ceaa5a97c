"""SVG pieces: round ticks inside their range, well-formed markup, texts escaped."""

import math
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemma4vec.report.charts import score_charts as charts
from gemma4vec.report.charts.svg import Panel, Scale, padded_range, picture, text, tick_label, ticks
from gemma4vec.report.content.training_log import read_training

reals = st.floats(min_value=-1e9, max_value=1e9, allow_nan=False)


@given(low=reals, span=st.floats(min_value=1e-6, max_value=1e9), about=st.integers(min_value=2, max_value=10))
def test_ticks_are_round_evenly_spaced_and_inside(low, span, about):
    span = max(span, abs(low) * 1e-6)  # narrower than that, floats themselves are not evenly spaced
    marks = ticks(low, low + span, about)
    assert len(marks) <= 2.5 * about + 2
    steps = np.diff(marks)
    if len(steps):
        step = float(np.median(steps))
        power = 10 ** math.floor(math.log10(step) + 1e-6)
        assert min(abs(step / power - factor) for factor in (1, 2, 5, 10)) < 1e-2
        assert marks[0] >= low - step * 1e-6 and marks[-1] <= low + span + step * 1e-6


@pytest.mark.parametrize(
    ("marks", "labels"),
    [
        ([0.0, 0.2, 0.4], ["0.0", "0.2", "0.4"]),
        ([-0.05, 0.0, 0.05], ["−0.05", "0.00", "0.05"]),
        ([0.0, 1000.0, 2000.0], ["0", "1,000", "2,000"]),
        ([0.0, 50_000.0, 100_000.0], ["0", "50k", "100k"]),
        ([0.0, 500_000.0, 1_000_000.0, 1_500_000.0], ["0.0", "0.5M", "1.0M", "1.5M"]),
    ],
)
def test_tick_labels_have_the_decimals_they_need(marks, labels):
    assert [tick_label(mark, marks) for mark in marks] == labels


@given(st.lists(st.floats(), max_size=20))
def test_a_padded_range_holds_the_finite_values_and_has_a_width(values):
    bounded = [value for value in values if not abs(value) > 1e100]
    low, high = padded_range(bounded)
    assert low < high
    assert all(low <= value <= high for value in bounded if math.isfinite(value))


def test_a_scale_maps_its_ends_to_the_ends():
    scale = Scale(2.0, 4.0, 10.0, 110.0)
    assert [scale(value) for value in (2.0, 3.0, 4.0)] == [10.0, 60.0, 110.0]
    assert Scale(1.0, 1.0, 0.0, 10.0)(1.0) == 5.0


def test_texts_are_escaped():
    svg = picture(10, 10, "<a>", "b & c", [text((0, 0), "</text><script>")])
    root = ElementTree.fromstring(str(svg))
    assert [child.text for child in root] == ["<a>", "b & c", "</text><script>"]


@pytest.mark.parametrize("steps", [2, 50, 5000])
@pytest.mark.parametrize("width", [350.0, 744.0])
def test_charts_are_well_formed_and_inside_their_frame(steps, width):
    random = np.random.default_rng(0)
    events = [
        {"event": "step", "step": step, "loss": float(random.random()), "tokens": step * 1000, "seconds": step,
         "tokens_per_second": 1000.0}
        for step in range(1, steps + 1)
    ]  # fmt: skip
    events += [{"event": "evaluation", "step": step, "suite": "dev", "ndcg@10": 0.4} for step in (0, steps)]
    log = read_training(events)
    for svg in (charts.draw_learning_curve(log, width), charts.draw_throughput(log, width)):
        assert svg is not None and len(svg) < 120_000
        root = ElementTree.fromstring(str(svg))
        height = float(root.attrib["height"])
        for path in root.iter("path"):
            pairs = [pair.split() for pair in path.attrib["d"].strip("MZ").split("L")]
            assert all(-1 <= float(x) <= width + 1 and -1 <= float(y) <= height + 1 for x, y in pairs)


def test_intervals_below_zero_end_at_the_axis_and_short_trainings_count_seconds():
    events = [{"event": "step", "step": step, "loss": 1.0, "tokens": 100 * step, "seconds": step} for step in (1, 2)]
    score = {"event": "evaluation", "step": 2, "suite": "dev", "ndcg@10": 0.02, "low": -0.05, "high": 0.09}
    root = ElementTree.fromstring(str(charts.draw_learning_curve(read_training([*events, score]), 744.0)))
    (interval,) = [one for one in root.iter("line") if one.attrib["class"] == "interval trained"]
    ends = [float(interval.attrib["y1"]), float(interval.attrib["y2"])]
    assert max(ends) == 380.0 and min(ends) > 250.0  # the panel's own
    labels = [str(one.text) for one in root.iter("text")]
    assert "2 s" in labels and not any("min" in one for one in labels)


@given(st.lists(st.floats(min_value=-1, max_value=1), max_size=60))
def test_the_bars_of_differences_cover_the_sum_of_the_differences(values):
    root = ElementTree.fromstring(str(charts.draw_differences(values, "BM25", 744.0)))
    height_per_unit, width_per_query = 80.0, (744.0 - 64.0) / max(len(values), 1)
    for css, expected in (
        ("area trained", sum(v for v in values if v > 0)),
        ("area other", -sum(v for v in values if v < 0)),
    ):
        shapes = [path for path in root.iter("path") if path.attrib["class"] == css]
        area = 0.0
        for shape in shapes:
            points = [tuple(map(float, pair.split())) for pair in shape.attrib["d"].strip("MZ").split("L")]
            area += (
                abs(sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True)))
                / 2
            )
        assert area / (height_per_unit * width_per_query) == pytest.approx(expected, abs=0.02 * max(len(values), 1))


def test_axes_name_what_they_show():
    axes = Panel(Scale(0, 10, 40, 300), Scale(0, 1, 100, 20)).axes("tokens", "loss")
    root = ElementTree.fromstring(f"<svg>{axes}</svg>")
    words = [element.text for element in root.iter("text")]
    assert "tokens" in words and "loss" in words and "0.6" in words
