"""The page about training data: whole, self-contained, with every distribution that there is."""

import re
import xml.etree.ElementTree as ET

import pytest

from gemma4vec.data.quality.profile import profile_rows
from gemma4vec.data.rows.rows import Row
from gemma4vec.report.data_page import format_languages, render_data, write_data_page
from gemma4vec.text.prompts import Document


@pytest.fixture
def profiles():
    rows = [
        Row(f"query number {number} <b>", [Document("number " * (number + 1))], [Document("other number")])
        for number in range(30)
    ]
    made = [
        profile_rows(name, some, sample=100, detect=lambda text: "en")
        for name, some in (("a<i>", rows), ("b", rows[:1]))
    ]
    plain = profile_rows("texts", [Row("only", [])], sample=9, detect=lambda text: "und")
    return [*made, plain]


def test_the_page_stands_alone_and_escapes(profiles, tmp_path):
    write_data_page(tmp_path / "page.html", profiles)
    page = (tmp_path / "page.html").read_text()
    assert page == render_data(profiles)
    assert "a&lt;i&gt;" in page and "<i>" not in page
    assert not re.search(r'(?:src|href)="(?!data:)', page) and "<script" not in page
    assert "32 rows of 3 sources" in page


def test_every_distribution_is_drawn_for_both_widths(profiles):
    pictures = re.findall(r"<svg.*?</svg>", render_data(profiles), flags=re.S)
    assert len(pictures) == 2 * (4 + 4 + 1)
    for picture in pictures:
        width = float(ET.fromstring(picture).get("width"))
        for points in re.findall(r' d="M([^"]*?)Z?"', picture):
            xs = [float(point.split()[0]) for point in points.split("L")]
            assert min(xs) >= 0 and max(xs) <= width


def test_languages_in_words(profiles):
    assert format_languages(profiles[0], "query") == "en 100%" and format_languages(profiles[2], "positive") == ""
