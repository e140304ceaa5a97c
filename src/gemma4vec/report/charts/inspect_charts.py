"""Charts about an inspection: scores by layer, gaps by topic, and the map."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from gemma4vec.report.charts.svg import (
    Panel,
    Point,
    Scale,
    dots,
    line,
    marker,
    padded_range,
    path,
    picture,
    rectangle,
    text,
    tick_label,
)
from gemma4vec.text.sanitize import sanitize

LEFT, RIGHT, TOP, BOTTOM = 44.0, 20.0, 34.0, 240.0
ROW = 26.0  # pixels of a topic
NAME = 150.0
MAP_HEIGHT = 420.0
NAME_CHARACTERS = 24


@dataclass(frozen=True)
class MapDots:
    """Places of the points that are drawn, by what they are."""

    documents: Sequence[Point]
    found: Sequence[Point]
    failed: Sequence[Point]
    sealed: Sequence[Point]

    @property
    def count(self) -> int:
        """Number of points."""
        return len(self.documents) + len(self.found) + len(self.failed) + len(self.sealed)


def draw_layers(layers: Sequence[Mapping[str, Any]], width: float) -> Markup | None:
    """Draw each layer's difference from the last one with its interval; None for fewer than two layers.

    Args:
        layers: of `layers.json`.
        width: of the picture.
    """
    if len(layers) < 2:
        return None
    known = [one for one in layers if None not in (one["low"], one["high"], one["minus_last"])]
    low, high = padded_range([one[end] for one in known for end in ("low", "high")], include=[0.0])
    last = float(layers[-1]["layer"])
    panel = Panel(Scale(float(layers[0]["layer"]), last, LEFT, width - RIGHT), Scale(low, high, BOTTOM, TOP))
    parts = [
        panel.axes("layer (0: input embeddings)", "nDCG@10 minus the last layer's", x_ticks=min(8, int(last))),
        panel.band([(one["layer"], one["low"], one["high"]) for one in known], "area trained faded"),
        line((panel.x.start, panel.y(0.0)), (panel.x.end, panel.y(0.0)), "zero"),
        path(panel.points([(one["layer"], one["minus_last"]) for one in known]), "line trained"),
        *(marker((panel.x(one["layer"]), panel.y(one["minus_last"])), "mark trained") for one in known),
    ]
    best = max(known, key=lambda one: float(one["minus_last"]))
    described = f"The best layer of {len(layers)} is {best['layer']}, {best['minus_last']:+.3f}."
    return picture(width, BOTTOM + 42, "Score by layer", described, parts)


def draw_topics(topics: Sequence[Mapping[str, Any]], width: float) -> Markup | None:
    """Draw the gap of each tested topic as a bar from zero, the lowest first; None without one.

    Args:
        topics: `clusters` of `clusters.json`.
        width: of the picture.
    """
    tested = sorted((one for one in topics if one["gap"] is not None), key=lambda one: float(one["gap"]))
    if not tested:
        return None
    low, high = padded_range([one["gap"] for one in tested], include=[0.0])
    scale = Scale(low, high, NAME, width - RIGHT)
    bottom = ROW * len(tested)
    marks = scale.ticks(4 if width < 500 else 6)
    parts = [line((scale(mark), 0), (scale(mark), bottom), "grid") for mark in marks]
    for place, one in enumerate(tested):
        ends = sorted((scale(0.0), scale(one["gap"])))
        css = "area other" if one["gap"] < 0.0 else "area trained"
        parts.append(rectangle((ends[0], ROW * place + 5), ends[1] - ends[0], ROW - 10, css))
        parts.append(text((NAME - 8, ROW * place + ROW / 2 + 4), _short(one["words"]), "tick", "end"))
    parts.append(line((scale(0.0), 0), (scale(0.0), bottom), "zero"))
    parts += [text((scale(mark), bottom + 16), tick_label(mark, marks), "tick", "middle") for mark in marks]
    described = "; ".join(f"{one['words']}: {one['gap']:+.3f}" for one in tested)
    return picture(width, bottom + 24, "Gap by topic", f"{sanitize(described)}.", parts)


def draw_map(points: MapDots, width: float) -> Markup | None:
    """Draw places in two dimensions: documents below, queries above, failing ones as diamonds; None without points."""
    if not points.count:
        return None
    every = [*points.documents, *points.found, *points.failed, *points.sealed]
    xs, ys = padded_range([x for x, _ in every], 0.02), padded_range([y for _, y in every], 0.02)
    height = min(MAP_HEIGHT, width)
    panel = Panel(Scale(*xs, 4.0, width - 4.0), Scale(*ys, height - 4.0, 4.0))
    parts = [
        dots(panel.points(points.documents), "documents"),
        dots(panel.points(points.sealed), "sealed"),
        dots(panel.points(points.found), "trained"),
        *(marker(one, "mark other", "diamond", 3.0) for one in panel.points(points.failed)),
    ]
    described = (
        f"{len(points.documents)} documents, {len(points.found)} queries of the open half that are answered, "
        f"{len(points.failed)} that are not, {len(points.sealed)} sealed queries."
    )
    return picture(width, height, "Map", described, parts)


def _short(words: str) -> str:
    shown = sanitize(words)
    return shown if len(shown) <= NAME_CHARACTERS else f"{shown[: NAME_CHARACTERS - 1]}…"
