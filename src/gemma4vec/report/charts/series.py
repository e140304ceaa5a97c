"""How series differ to the eye: each has a letter, a color, dashes and a shape, the same in every chart and table."""

from collections.abc import Mapping
from string import ascii_uppercase

from markupsafe import Markup

from gemma4vec.report.charts.svg import Point, line, marker, text

COLORS, DASHES = 6, 4
SHAPES = ("circle", "square", "diamond", "triangle")
WIDTH, HEIGHT = 30.0, 12.0  # of a swatch
APART = 13.0  # pixels between the letters at the ends of lines


def series_class(place: int) -> str:
    """Return the CSS classes that set color and dashes of series `place`; no two of the first twelve are alike."""
    dashes = place % DASHES
    return f"s{place % COLORS}{f' dash{dashes}' if dashes else ''}"


def series_shape(place: int) -> str:
    """Return the shape of the markers of series number `place`."""
    return SHAPES[place % len(SHAPES)]


def series_letter(place: int) -> str:
    """Return the letter of series number `place`: A, B, ..., Z, A2, ..."""
    again = place // len(ascii_uppercase)
    return ascii_uppercase[place % len(ascii_uppercase)] + (str(again + 1) if again else "")


def draw_swatch(place: int) -> Markup:
    """Draw a piece of the line of series number `place` with its marker; the letter stands beside it."""
    css, middle = series_class(place), HEIGHT / 2
    frame = Markup('<svg class="swatch" width="{:g}" height="{:g}" aria-hidden="true">{}{}</svg>')
    shape = marker((WIDTH / 2, middle), f"mark {css}", series_shape(place), 3.6)
    return frame.format(WIDTH, HEIGHT, line((1, middle), (WIDTH - 1, middle), f"line {css}"), shape)


def draw_letters(ends: Mapping[int, Point]) -> list[Markup]:
    """Draw the letter of each series beside the end of its line; letters that would cover each other move apart.

    Args:
        ends: number of the series -> its last point.
    """
    parts, lowest = [], -APART
    for place, (x, y) in sorted(ends.items(), key=lambda one: one[1][1]):
        lowest = max(y + 4, lowest + APART)
        parts.append(text((x + 7, lowest), series_letter(place), "letter"))
    return parts
