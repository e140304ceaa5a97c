"""Charts about an inspection: what each layer would score, what fewer dimensions and bits cost, gaps of topics."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from gemma4vec.report.charts.svg import (
    Panel,
    Scale,
    interval,
    line,
    marker,
    padded_range,
    path,
    picture,
    text,
    tick_label,
)
from gemma4vec.text.sanitize import sanitize

LEFT, RIGHT, TOP, BOTTOM = 44.0, 16.0, 34.0, 190.0
ROW = 24.0  # height of a row in a chart of rows
SHARE = 0.34  # of the width that names take
CHARACTER = 6.4  # width of one


def draw_layers(layers: Sequence[Mapping[str, Any]], width: float) -> Markup | None:
    """Draw each layer's nDCG@10 and, as a band, the interval of its difference from the last; None for fewer than two.

    Args:
        layers: of `layers.json`.
        width: of the picture.
    """
    if len(layers) < 2:
        return None
    last = float(layers[-1]["ndcg@10"])
    known = [one for one in layers[:-1] if None not in (one["low"], one["high"])]  # one query has no interval
    band = [(float(one["layer"]), last + one["low"], last + one["high"]) for one in known]
    low, high = padded_range([one["ndcg@10"] for one in layers], include=[end for row in band for end in row[1:]])
    first, end = float(layers[0]["layer"]), float(layers[-1]["layer"])
    panel = Panel(Scale(first, end, LEFT, width - RIGHT), Scale(max(low, 0.0), min(high, 1.0), BOTTOM, TOP))
    places = panel.points([(one["layer"], one["ndcg@10"]) for one in layers])
    level = panel.y(last)
    parts = [
        panel.axes("layer (0: input embeddings)", "nDCG@10", x_ticks=min(len(layers) - 1, 5 if width < 500 else 12)),
        line((panel.x.start, level), (panel.x.end, level), "axis dashed"),
        *(line((panel.x(x), panel.y(a)), (panel.x(x), panel.y(b)), "interval trained") for x, a, b in band),
        path(places, "line trained"),
        *(marker(place, "mark trained", "diamond" if place is places[-1] else "circle") for place in places),
    ]
    best = max(layers, key=lambda one: one["ndcg@10"])
    said = (
        f"{len(layers)} layers; layer {best['layer']} has the highest score, {best['ndcg@10']:.3f}, the last {last:.3f}"
    )
    return picture(width, BOTTOM + 42, "nDCG@10 by layer", said, parts)


def draw_rows(
    rows: Sequence[tuple[str, float, float | None, float | None, float | None]], title: str, axis: str, width: float
) -> Markup | None:
    """Draw a value a row with its interval (circle), and its baseline (diamond), around a line at 0; None without rows.

    Args:
        rows: (name, value, low, high, baseline) each.
        title: of the picture. axis: what the values are. width: of the picture.
    """
    if not rows:
        return None
    names = max(120.0, SHARE * width)
    ends = [one for _, *values in rows for one in values if one is not None]
    low, high = padded_range(ends, include=[0.0])
    across = Scale(low, high, names, width - RIGHT)
    bottom = TOP + ROW * len(rows)
    zero = across(0.0)
    marks = across.ticks(4 if width < 500 else 7)
    parts = [line((zero, TOP - 8), (zero, bottom), "zero"), line((names, bottom), (width - RIGHT, bottom), "axis")]
    parts += [text((across(value), bottom + 17), tick_label(value, marks), "tick", "middle") for value in marks]
    parts.append(text((width - RIGHT, TOP - 16), axis, "label", "end"))
    for place, (name, value, least, most, baseline) in enumerate(rows):
        y = TOP + ROW * (place + 0.5)
        fits = int((names - 12) / CHARACTER)
        short = name if len(name) <= fits else f"{name[: fits - 1]}\u2026"
        parts.append(text((names - 10, y + 4), sanitize(short), "tick", "end"))
        if least is not None and most is not None:
            parts.append(interval(across, y, least, most, "interval trained"))
        if baseline is not None:
            parts.append(marker((across(baseline), y), "mark s1", "diamond", 3.5))
        parts.append(marker((across(value), y), "mark trained"))
    said = "; ".join(f"{name}: {value:+.3f}" for name, value, *_ in rows)
    return picture(width, bottom + 24, title, sanitize(said), parts)


def draw_topics(topics: Sequence[Mapping[str, Any]], width: float) -> Markup | None:
    """Draw the gap of each tested topic, the lowest first; None without one.

    Args:
        topics: `clusters` of `clusters.json`.
        width: of the picture.
    """
    tested = sorted((one for one in topics if isinstance(one.get("gap"), float)), key=lambda one: float(one["gap"]))
    rows = [(one["words"], one["gap"], None, None, None) for one in tested]
    return draw_rows(rows, "Gap by topic", "inside minus elsewhere", width)
