"""The page about a plan: lineage, scores, what each step brought, vector lengths and schemes, in one HTML file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gemma4vec.report.charts.forest import draw_forest_axis, draw_forest_row, forest_scale
from gemma4vec.report.charts.lineage import Node, draw_lineage
from gemma4vec.report.charts.series import series_class
from gemma4vec.report.content.run_data import METRICS
from gemma4vec.report.templating import draw_chart, render_template, write_page
from gemma4vec.statistics.bootstrap import Interval

WIDTH = 290.0


def write_plan_page(results: Mapping[str, Any], out: Path) -> Path:
    """Write the page about the results that `pipeline.plan.results.summarize` returns.

    Raises:
        WorkError: the file cannot be written.
    """
    return write_page(out, render_plan(results))


def render_plan(results: Mapping[str, Any]) -> str:
    """Return the page as HTML."""
    steps, machine = results["steps"], results["environment"]["machine"]
    names = list(dict.fromkeys(row["step"] for row in steps))
    colors = {row["key"]: series_class(names.index(row["step"])) for row in steps}
    scale = forest_scale((_span(one) for one in results["differences"]), WIDTH)
    marks = [mark for row in [*steps, *results["references"]] for mark in row["marks"]]
    values = {
        "results": results,
        "metric": METRICS.get(results["metric"], results["metric"]),
        "headline": headline(results),
        "machine": f"{machine.get('cpu')}, {machine.get('cores')} cores",
        "lineage": draw_chart(lambda width: draw_lineage(_nodes(steps), width, colors)),
        "rows": [*results["references"], *steps],
        "colors": colors,
        "has_final": any(suite["role"] == "final" for suite in results["suites"]),
        "forest": [
            (one, draw_forest_row(one["name"], _span(one), scale, colors[one["key"]])) for one in results["differences"]
        ],
        "axis": draw_forest_axis(scale, results["metric"]) if results["differences"] else None,
        "lengths": sorted({int(length) for row in results["lengths"] for length in row["lengths"]}, reverse=True),
        "marks": marks,
    }
    return render_template("plan.html", values)


def headline(results: Mapping[str, Any]) -> str:
    """The verdict on each result of the plan in one sentence: of the final suites, or of the dev suites without any."""
    final = [one for one in results["differences"] if one["role"] == "final"]
    shown = final or [one for one in results["differences"] if one["role"] == "dev"]
    if not shown:
        return "No two models of this plan have been compared yet."
    words = [f"{one['name']}: {one['verdict']} ({one['mean']:+.3f})" for one in shown[-3:]]
    suites = "final" if final else "dev"
    return f"On the {suites} suites, {'; '.join(words)}."


def _nodes(steps: Sequence[Mapping[str, Any]]) -> list[Node]:
    return [
        Node(
            row["key"], tuple(row["parents"]), None if row["dev"] is None else row["dev"]["mean"], row["kept"] is False
        )
        for row in steps
    ]


def _span(one: Mapping[str, Any]) -> Interval:
    """The interval of one difference."""
    return Interval(one["mean"], one["low"], one["high"], 0.95, "t", one["n"])
