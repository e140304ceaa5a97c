"""The page about training data: a table of the sources and their distributions, in one HTML file."""

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from gemma4vec.data.ngrams.language import format_language
from gemma4vec.data.quality.profile import Distribution, Profile
from gemma4vec.report.charts.svg import Panel, Scale, line, path, picture, text
from gemma4vec.report.templating import NARROW, WIDE, Chart, render_template, write_page

TOP, BOTTOM, LEFT, RIGHT = 28.0, 132.0, 44.0, 16.0
LANGUAGES = 5


def write_data_page(out: Path, profiles: Sequence[Profile]) -> None:
    """Write the page.

    Raises:
        WorkError: the file cannot be written.
    """
    write_page(out, render_data(profiles))


def render_data(profiles: Sequence[Profile]) -> str:
    """Return the page as HTML."""
    return render_template(
        "data.html",
        {
            "profiles": profiles,
            "rows": sum(one.rows for one in profiles),
            "format_languages": format_languages,
            "sections": [(one, _draw_charts(one)) for one in profiles],
        },
    )


def format_languages(profile: Profile, field: str) -> str:
    """Format the most common languages of a field's texts with their shares."""
    counts = profile.languages.get(field) or {}
    total = sum(counts.values())
    shown = [f"{format_language(code)} {count / total:.0%}" for code, count in list(counts.items())[:LANGUAGES]]
    return ", ".join(shown) + (f" and {len(counts) - LANGUAGES} more" if len(counts) > LANGUAGES else "")


def _draw_charts(profile: Profile) -> list[tuple[str, Chart]]:
    """Return (caption, chart) for every distribution of the source."""
    pairs: list[tuple[str, Distribution | None, Distribution | None]] = [
        (f"Length of {field} texts in {profile.unit}", profile.lengths[field], None)
        for field in ("query", "positive", "negative")
    ]
    pairs.append(("Share of the query's words that occur in the text", profile.overlap, profile.negative_overlap))
    pairs.append(("Cosine with the query", profile.similarity, profile.negative_similarity))
    return [
        (
            _format_caption(words, one, other),
            Chart(*(draw_histogram(words, one, other, width) for width in (WIDE, NARROW))),
        )
        for words, one, other in pairs
        if one is not None
    ]


def _format_caption(words: str, one: Distribution, other: Distribution | None) -> str:
    if other is not None:
        return f"{words}: positives filled, negatives as a line."
    if one.edges[-1] <= 1.0:
        return f"{words}. Median {one.median:.2f}, mean {one.mean:.2f}."
    return f"{words}. Median {one.median:,.0f}, 95% below {one.high:,.0f}, longest {one.largest:,.0f}."


def draw_histogram(words: str, one: Distribution, other: Distribution | None, width: float) -> Markup:
    """Draw a filled distribution and, if given, a second one as a line over it. Heights are shares of the texts."""
    shares = [count / max(one.n, 1) for count in one.counts]
    others = [count / max(other.n, 1) for count in other.counts] if other is not None else []
    x = Scale(one.edges[0], one.edges[-1], LEFT, width - RIGHT)
    panel = Panel(x, Scale(0.0, max([*shares, *others, 0.01]) * 1.05, BOTTOM, TOP))
    parts = [
        panel.axes("", "share of texts", x_ticks=4 if width < 500 else 8, y_ticks=3),
        path(_steps(panel, one.edges, shares), "area trained", closed=True),
    ]
    described = f"Median {one.median:.3g}, 95% below {one.high:.3g}"
    if other is not None:
        parts.append(path(_steps(panel, other.edges, others), "line other"))
        described += f"; negatives: median {other.median:.3g}, 95% below {other.high:.3g}"
        parts.append(text((panel.x.end, 14), "positives", "label trained-text", "end"))
        parts.append(text((panel.x.end - 70, 14), "negatives", "label other-text", "end"))
    parts.append(line((panel.x(one.median), BOTTOM), (panel.x(one.median), TOP), "zero dashed"))
    return picture(width, BOTTOM + 26, words, described, parts)


def _steps(panel: Panel, edges: Sequence[float], values: Sequence[float]) -> list[tuple[float, float]]:
    """Return the outline of the bars in pixels."""
    points = [(edges[0], 0.0)]
    for low, high, value in zip(edges[:-1], edges[1:], values, strict=True):
        points += [(low, value), (high, value)]
    return panel.points([*points, (edges[-1], 0.0)])
