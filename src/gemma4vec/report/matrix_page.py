"""The page about a matrix: scores, differences from the control and cost of every recipe, in one HTML file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from gemma4vec.report.charts.forest import draw_forest_axis, draw_forest_row, forest_scale
from gemma4vec.report.charts.series import series_class, series_shape
from gemma4vec.report.charts.svg import Panel, Scale, line, marker, padded_range, picture
from gemma4vec.report.content.run_data import METRICS
from gemma4vec.report.templating import draw_chart, render_template, write_page
from gemma4vec.statistics.bootstrap import Interval

WIDTH, LEFT, RIGHT = 290.0, 44.0, 20.0


def write_matrix_page(results: Mapping[str, Any], out: Path) -> Path:
    """Write the page about the results that `pipeline.matrix.table.summarize` returns.

    Raises:
        WorkError: the file cannot be written.
    """
    return write_page(out, render_matrix(results))


def render_matrix(results: Mapping[str, Any]) -> str:
    """Return the page as HTML."""
    rows = [*results["rows"], *results["references"]]
    differences = [(row["variant"], row["difference"]) for row in results["rows"] if row["difference"]]
    scale = forest_scale((_span(one) for _, one in differences), WIDTH)
    colors = {row["variant"]: series_class(place) for place, row in enumerate(results["rows"])}
    machine = results["environment"]["machine"]
    values = {
        "results": results,
        "metric": METRICS.get(results["metric"], results["metric"]),
        "headline": _headline(results),
        "machine": f"{machine.get('cpu')}, {machine.get('cores')} cores",
        "finals": [suite["suite"] for suite in results["suites"] if suite["role"] == "final"],
        "rows": rows,
        "forest": [
            (name, one, draw_forest_row(f"{name} minus {one['control']}", _span(one), scale, colors[name]))
            for name, one in differences
        ],
        "axis": draw_forest_axis(scale, results["metric"]) if differences else None,
        "cost": draw_chart(
            lambda width: _draw_cost(results["rows"], colors, METRICS.get(results["metric"], ""), width)
        ),
        "colors": colors,
        "rates": list(dict.fromkeys(rate for row in results["grid"] for rate in row["scores"])),
        "unfinished": [
            (title, [(one.get("cell") or one["variant"], one["reason"]) for one in results[key]])
            for title, key in (("Failed", "failed"), ("Stopped by the stop rule", "stopped"), ("Not run", "not_run"))
            if results[key]
        ],
    }
    return render_template("matrix.html", values)


def _headline(results: Mapping[str, Any]) -> str:
    """Summarize the verdicts of all recipes against the control in one sentence."""
    by_word: dict[str, list[str]] = {}
    for row in results["rows"]:
        if row["difference"]:
            by_word.setdefault(row["difference"]["verdict"], []).append(row["variant"])
    if not by_word:
        return "No recipe has been compared with the control yet."
    words = {
        "better": "better than",
        "worse": "worse than",
        "equivalent": "equivalent to",
        "undetermined": "undetermined",
    }
    parts = [
        f"{word}{' against' if key == 'undetermined' else ''} {results['control']}: {', '.join(by_word[key])}"
        for key, word in words.items()
        if key in by_word
    ]
    sentence = "; ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]}."


def _span(one: Mapping[str, Any]) -> Interval:
    """The interval of one recipe's difference from the control."""
    return Interval(one["mean"], one["low"], one["high"], 0.95, "t", one["n"])


def _draw_cost(
    rows: Sequence[Mapping[str, Any]], colors: Mapping[str, str], metric: str, width: float
) -> Markup | None:
    """Draw final scores with intervals over minutes of training; None for fewer than two recipes."""
    measured = [(place, row) for place, row in enumerate(rows) if row["final_mean"] and row.get("minutes")]
    if len(measured) < 2:
        return None
    low, high = padded_range([row["final_mean"][edge] for _, row in measured for edge in ("low", "high")])
    longest = max(row["minutes"] for _, row in measured)
    panel = Panel(Scale(0.0, longest * 1.15, LEFT, width - RIGHT), Scale(max(low, 0.0), min(high, 1.0), 190.0, 30.0))
    parts = [panel.axes("minutes of training", f"{metric}, mean of the final suites", x_ticks=4 if width < 500 else 7)]
    for place, row in measured:
        x, score, css = panel.x(row["minutes"]), row["final_mean"], colors[row["variant"]]
        parts.append(line((x, panel.y(score["low"])), (x, panel.y(score["high"])), f"interval {css}"))
        parts.append(marker((x, panel.y(score["mean"])), f"mark {css}", series_shape(place), 5.0))
    described = "; ".join(
        f"{row['variant']}: {row['minutes']:.1f} min, {row['final_mean']['mean']:.3f}" for _, row in measured
    )
    return picture(width, 232, "Cost against quality", described, parts)
