"""A vector as a strip of bars, and a walk between two vectors as two curves."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from gemma4vec.report.charts.svg import Panel, Scale, line, marker, padded_range, path, picture, text

LEFT, RIGHT, TOP, BOTTOM = 44.0, 16.0, 34.0, 200.0
STRIP = 90.0


def draw_vector(values: Sequence[float], width: float) -> Markup | None:
    """Draw a bar for each dimension of a vector, upward above 0; None without values."""
    if not values:
        return None
    most = max(abs(value) for value in values) or 1.0
    across, up = Scale(0, len(values), 0.0, width), Scale(-most, most, STRIP - 2, 2.0)
    # One path for all bars: a picture of thousands of elements is slow.
    ends = [(across(place + 0.5), up(value)) for place, value in enumerate(values)]
    bars = "".join(f"M{x:g} {up(0.0):g}V{y:g}" for x, y in ends)
    parts = [Markup('<path class="line trained strip" d="{}"/>').format(bars), line((0, up(0)), (width, up(0)), "axis")]
    return picture(width, STRIP, "Vector", f"{len(values)} dimensions, the largest entry is {most:.3f}", parts)


def draw_walk(steps: Sequence[Mapping[str, Any]], degrees: float, width: float) -> Markup | None:
    """Draw the cosines of a walk's texts to the query and to the target over the angle; None without steps.

    Args:
        steps: of `fanout.one_walk.walk_to`.
        degrees: of the whole way.
        width: of the picture.
    """
    if not steps:
        return None
    sides = (("to_query", "to the query", "s0", "circle"), ("to_target", "to the target", "s1", "diamond"))
    low, high = padded_range([step[name] for step in steps for name, *_ in sides], include=[1.0])
    panel = Panel(Scale(0.0, max(degrees, 1e-6), LEFT, width - RIGHT), Scale(low, min(high, 1.02), BOTTOM, TOP))
    parts = [panel.axes("degrees from the query", "cosine of the text", x_ticks=5 if width < 500 else 8)]
    for name, words, css, shape in sides:
        places = panel.points([(step["degrees"], step[name]) for step in steps])
        if len(places) > 1:
            parts.append(path(places, f"line {css}"))
        parts += [marker(place, f"mark {css}", shape) for place in places]
        end = places[0] if name == "to_query" else places[-1]
        anchor = "start" if name == "to_query" else "end"
        parts.append(text((end[0], max(end[1] - 9, TOP - 2)), words, "label", anchor))
    said = f"{len(steps)} texts; the last one has cosine {steps[-1]['to_query']:.3f} to the query and "
    return picture(
        width,
        BOTTOM + 42,
        "Walk from the query to the target",
        f"{said}{steps[-1]['to_target']:.3f} to the target",
        parts,
    )
