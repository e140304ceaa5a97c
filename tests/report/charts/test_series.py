"""Series differ without color: no two of the first twelve have the same line, letters do not overlap."""

import re
from itertools import combinations

import pytest

from gemma4vec.report.charts.series import APART, SHAPES, draw_letters, series_class, series_letter, series_shape
from gemma4vec.report.charts.svg import marker
from gemma4vec.report.templating import TEMPLATES

STYLE = (TEMPLATES / "report.css").read_text(encoding="utf-8")


def test_twelve_series_have_twelve_lines_and_letters() -> None:
    assert len({series_class(place) for place in range(12)}) == 12
    assert len({series_letter(place) for place in range(60)}) == 60
    assert [series_letter(place) for place in (0, 1, 25, 26)] == ["A", "B", "Z", "A2"]


def test_neighbors_differ_in_color_and_dashes_and_shape() -> None:
    for place in range(11):
        here, there = (series_class(one).split() for one in (place, place + 1))
        assert here[0] != there[0] and here[1:] != there[1:]
        assert series_shape(place) != series_shape(place + 1)
    assert len({marker((0, 0), "", shape) for shape in SHAPES}) == len(SHAPES)


@pytest.mark.parametrize("place", range(12))
def test_the_style_has_every_class(place: int) -> None:
    color, *dashes = series_class(place).split()
    assert STYLE.count(f"svg .{color} {{ stroke:") == 2  # light and dark
    assert all(f"svg .line.{one} {{ stroke-dasharray:" in STYLE for one in dashes)


def luminance(color: str) -> float:
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colors_of_series_are_not_those_of_references_and_show_on_their_paper() -> None:
    light, dark = STYLE.split("@media screen and (prefers-color-scheme: dark)")
    for style, paper in ((light, "#ffffff"), (dark, "#15181c")):
        colors = [re.search(rf"svg \.s{place} {{ stroke: (#\w+)", style)[1] for place in range(6)]  # type: ignore[index]
        assert len(set(colors)) == 6
        for one in colors:
            bright, dim = sorted([luminance(one), luminance(paper)], reverse=True)
            assert (bright + 0.05) / (dim + 0.05) >= 2.5, one
    assert ".dot.reference { background: none" in STYLE


def test_letters_at_the_ends_of_lines_move_apart() -> None:
    parts = draw_letters({0: (100.0, 50.0), 1: (100.0, 51.0), 2: (100.0, 52.0), 3: (100.0, 150.0)})
    places = [float(re.search(r' y="([\d.]+)"', part)[1]) for part in parts]  # type: ignore[index]
    assert [re.search(r">(\w)<", part)[1] for part in parts] == ["A", "B", "C", "D"]  # type: ignore[index]
    assert all(there - here >= APART for here, there in combinations(sorted(places), 2) if there != here)
    assert places[0] == 54.0 and places[3] == 154.0
