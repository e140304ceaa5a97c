"""Leak against use: how much an attacker finds in vectors under each defense, over the retrieval that is left."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from gemma4vec.report.charts.series import series_class, series_shape
from gemma4vec.report.charts.svg import Panel, Scale, line, marker, padded_range, path, picture, text
from gemma4vec.text.sanitize import sanitize

LEFT, RIGHT, TOP, BOTTOM = 44.0, 20.0, 34.0, 300.0


def kinds_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The kinds of defenses, in their order: a color and a shape each."""
    return list(dict.fromkeys(row["kind"] for row in rows))


def draw_leak(rows: Sequence[Mapping[str, Any]], floors: Mapping[str, float], width: float) -> Markup | None:
    """Draw the adaptive attacker's F1 over nDCG@10, one line for each kind of defense; None without rows.

    Args:
        rows: of `inversion.privacy.measure_privacy`, the undefended one first.
        floors: label -> F1, drawn as level lines.
        width: of the picture.
    """
    if not rows:
        return None
    kinds = kinds_of(rows)
    low_x, high_x = padded_range([row["use"]["mean"] for row in rows])
    low_y, high_y = padded_range(
        [row["adaptive"][end] for row in rows for end in ("low", "high")], include=[*floors.values()]
    )
    panel = Panel(Scale(low_x, high_x, LEFT, width - RIGHT), Scale(max(0.0, low_y), high_y, BOTTOM, TOP))
    parts = [panel.axes("nDCG@10 (more use)", "F1 of the words found (more leak)", x_ticks=4 if width < 500 else 7)]
    for label, level in floors.items():
        y = panel.y(level)
        parts.append(line((panel.x.start, y), (panel.x.end, y), "axis dashed"))
        parts.append(text((panel.x.start + 4, y - 5), f"{label} {level:.3f}", "label"))
    for place, kind in enumerate(kinds):
        own = [row for row in rows if row["kind"] == kind]
        # A weaker defense of the kind leads to a stronger one, and all begin undefended.
        begun = own if kind == "none" else [rows[0], *own]
        points = [(row["use"]["mean"], row["adaptive"]["mean"]) for row in begun]
        if len(points) > 1:
            parts.append(path(panel.points(points), f"line {series_class(place)}"))
        for row in own:
            x, y = panel.x(row["use"]["mean"]), panel.y(row["adaptive"]["mean"])
            ends = [panel.y(row["adaptive"][end]) for end in ("low", "high")]
            parts.append(line((x, ends[0]), (x, ends[1]), "axis"))
            parts.append(marker((x, y), f"mark {series_class(place)}", series_shape(place)))
    described = "; ".join(f"{r['name']}: F1 {r['adaptive']['mean']:.3f} at {r['use']['mean']:.3f}" for r in rows)
    return picture(width, BOTTOM + 42, "Leak against use", f"{sanitize(described)}.", parts)
