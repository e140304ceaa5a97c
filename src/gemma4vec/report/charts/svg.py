"""SVG elements: scales, ticks, axes, lines, bands. All functions return safe markup; texts are escaped.

Class names refer to colors in the page's style sheet, so one chart works in light and dark mode and on paper.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

Point = tuple[float, float]


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) between `low` and `high`, approximately `about` of them."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low] if math.isfinite(low) else []
    raw = (high - low) / max(about, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = min((factor * power for factor in (1.0, 2.0, 5.0, 10.0)), key=lambda size: abs(math.log(size / raw)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def tick_label(value: float, all_ticks: Sequence[float]) -> str:
    """Format a tick with the decimals that the tick spacing needs; thousands as k, millions as M."""
    step = abs(all_ticks[1] - all_ticks[0]) if len(all_ticks) > 1 else abs(value)
    largest = max((abs(tick) for tick in all_ticks), default=0.0)
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        # Four digits are readable without a suffix: 8,000, but 10k.
        if largest >= 10 * size or (largest >= size and suffix != "k"):
            return _number(value / size, step / size) + (suffix if value else "")
    return _number(value, step)


def _number(value: float, step: float) -> str:
    decimals = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 2
    return f"{value + 0.0:,.{min(decimals, 6)}f}".replace("-", "−")


@dataclass(frozen=True)
class Scale:
    """A linear map from data (`low` to `high`) to pixels (`start` to `end`)."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the pixel position of a value."""
        span = self.high - self.low
        share = (value - self.low) / span if span else 0.5
        return round(self.start + share * (self.end - self.start), 2)

    def ticks(self, about: int) -> list[float]:
        """Return approximately `about` round numbers inside the scale."""
        return ticks(self.low, self.high, about)


def padded_range(values: Sequence[float], share: float = 0.06, include: Sequence[float] = ()) -> tuple[float, float]:
    """Return the range of the finite values and `include` with padding; its width is never zero."""
    finite = [value for value in (*values, *include) if math.isfinite(value)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    air = share * (high - low) or max(abs(high) * 0.1, 1e-3)
    return low - air, high + air


def line(start: Point, end: Point, css: str) -> Markup:
    """A straight line."""
    return Markup('<line class="{}" x1="{:g}" y1="{:g}" x2="{:g}" y2="{:g}"/>').format(css, *start, *end)


def text(at: Point, words: str, css: str = "", anchor: str = "start") -> Markup:
    """A text at a point; `anchor` is start, middle or end."""
    return Markup('<text class="{}" x="{:g}" y="{:g}" text-anchor="{}">{}</text>').format(css, *at, anchor, words)


def path(points: Sequence[Point], css: str, *, closed: bool = False) -> Markup:
    """A line through points, or the shape that they enclose."""
    steps = "L".join(f"{x:g} {y:g}" for x, y in points)
    return Markup('<path class="{}" d="M{}{}"/>').format(css, steps, "Z" if closed else "")


def rectangle(corner: Point, width: float, height: float, css: str) -> Markup:
    """A filled rectangle."""
    shape = '<rect class="{}" x="{:g}" y="{:g}" width="{:g}" height="{:g}"/>'
    return Markup(shape).format(css, *corner, max(width, 0.0), max(height, 0.0))


def marker(at: Point, css: str, shape: str = "circle", radius: float = 4.0) -> Markup:
    """A circle, square, diamond or triangle, so that color is not the only difference between series."""
    x, y = at
    if shape == "circle":
        return Markup('<circle class="{}" cx="{:g}" cy="{:g}" r="{:g}"/>').format(css, x, y, radius)
    if shape == "square":
        return rectangle((x - radius, y - radius), 2 * radius, 2 * radius, css)
    r = radius * 1.3
    if shape == "triangle":
        return path([(x - r, y + radius), (x, y - r), (x + r, y + radius)], css, closed=True)
    return path([(x - r, y), (x, y - r), (x + r, y), (x, y + r)], css, closed=True)


def dots(points: Sequence[Point], css: str) -> Markup:
    """Many small dots as one element: lines of no length with round ends."""
    steps = "".join(f"M{x:g} {y:g}h0" for x, y in points)
    return Markup('<path class="dots {}" d="{}"/>').format(css, steps) if points else Markup("")


def interval(scale: Scale, y: float, low: float, high: float, css: str, cap: float = 4.0) -> Markup:
    """A horizontal interval with caps."""
    left, right = scale(low), scale(high)
    return (
        line((left, y), (right, y), css)
        + line((left, y - cap), (left, y + cap), css)
        + line((right, y - cap), (right, y + cap), css)
    )


def picture(
    width: float, height: float, title: str, description: str, content: Sequence[Markup], css: str = ""
) -> Markup:
    """An SVG element with a title and a description for screen readers."""
    frame = '<svg class="{}" role="img" viewBox="0 0 {:g} {:g}" width="{:g}" height="{:g}" aria-label="{}">'
    start = Markup(frame).format(css, width, height, width, height, f"{title}. {description}")
    named = Markup("<title>{}</title><desc>{}</desc>").format(title, description)
    return start + named + Markup("").join(content) + Markup("</svg>")


@dataclass(frozen=True)
class Panel:
    """A plot area with its two scales."""

    x: Scale
    y: Scale

    def axes(self, x_label: str, y_label: str, *, x_ticks: int = 6, y_ticks: int = 4, x_numbers: bool = True) -> Markup:
        """Draw grid lines, numbers and labels; the y label is above the axis, so it needs no rotated text."""
        left, right, bottom, top = self.x.start, self.x.end, self.y.start, self.y.end
        parts = [text((left - 34, top - 12), y_label, "label")]
        for marks, place in ((self.y.ticks(y_ticks), self.y),):
            for value in marks:
                parts.append(line((left, place(value)), (right, place(value)), "grid"))
                parts.append(text((left - 6, place(value) + 4), tick_label(value, marks), "tick", "end"))
        marks = self.x.ticks(x_ticks)
        parts.append(line((left, bottom), (right, bottom), "axis"))
        for value in marks:
            parts.append(line((self.x(value), bottom), (self.x(value), bottom + 4), "axis"))
            if x_numbers:
                parts.append(text((self.x(value), bottom + 17), tick_label(value, marks), "tick", "middle"))
        if x_label:
            parts.append(text((right, bottom + 34), x_label, "label", "end"))
        return Markup("").join(parts)

    def points(self, values: Sequence[Point]) -> list[Point]:
        """Convert data points to pixels."""
        return [(self.x(x), self.y(y)) for x, y in values]
