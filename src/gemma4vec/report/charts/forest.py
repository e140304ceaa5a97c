"""Forest plots: differences with their intervals, one below the other on one scale."""

from collections.abc import Iterable
from typing import Protocol

from markupsafe import Markup

from gemma4vec.report.charts.svg import Scale, interval, line, marker, padded_range, picture, text, tick_label

HEIGHT, AXIS_HEIGHT, SIDE = 34.0, 20.0, 18.0


class Span(Protocol):
    """A difference with the ends of its interval; without an interval both ends are equal."""

    @property
    def mean(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


def forest_scale(spans: Iterable[Span], width: float) -> Scale:
    """Return one scale, including zero, for all rows of a forest plot."""
    edges = [edge for one in spans for edge in (one.low, one.high)]
    low, high = padded_range(edges or [0.0], 0.1, include=[0.0])
    return Scale(low, high, SIDE, width - SIDE)


def draw_forest_row(title: str, span: Span, scale: Scale, css: str, shape: str = "circle") -> Markup:
    """Draw one difference with its interval, and the zero line.

    Args:
        title: what is subtracted from what, for screen readers.
        css: class that sets the colors of interval and marker.
        shape: of the marker.
    """
    has_width = span.high > span.low
    parts = [
        *(line((scale(mark), 0), (scale(mark), HEIGHT), "grid") for mark in scale.ticks(4)),
        line((scale(0), 0), (scale(0), HEIGHT), "zero"),
        *([interval(scale, HEIGHT / 2, span.low, span.high, f"interval {css}")] if has_width else []),
        marker((scale(span.mean), HEIGHT / 2), f"mark {css}", shape, 5.0),
    ]
    limits = f"95% interval {span.low:+.3f} to {span.high:+.3f}" if has_width else "no interval"
    return picture(scale.end + SIDE, HEIGHT, title, f"{span.mean:+.3f}, {limits}", parts, "forest")


def draw_forest_axis(scale: Scale, metric: str, note: str = "") -> Markup:
    """Draw the numbers under a forest plot.

    Args:
        note: what a side of zero means, for screen readers; may be empty.
    """
    marks = scale.ticks(4)
    parts = [
        text((scale(mark), 16), ("+" if mark > 0 else "") + tick_label(mark, marks), "tick", "middle") for mark in marks
    ]
    described = f"difference in {metric}{f'; {note}' if note else ''}"
    return picture(scale.end + SIDE, AXIS_HEIGHT, "Axis", described, parts, "forest")
