"""Charts of several runs: overlaid curves, differences by task, cost against quality."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from gemma4vec.report.charts.series import draw_letters, series_class, series_shape
from gemma4vec.report.charts.svg import (
    Panel,
    Point,
    Scale,
    line,
    marker,
    padded_range,
    path,
    picture,
)
from gemma4vec.report.content.comparison_data import Group, SuiteSection
from gemma4vec.report.content.run_data import METRICS
from gemma4vec.report.content.training_log import TrainingLog

LEFT, RIGHT = 44.0, 20.0


def draw_loss_curves(groups: Sequence[Group], width: float) -> Markup | None:
    """Draw the smoothed training loss of every run over tokens; None if no run has a curve."""
    rows = [(place, log.smoothed_loss) for place, log in _logs(groups) if len(log.steps) > 1]
    points = [point for _, smooth in rows for point in smooth]
    if not points:
        return None
    lasts = [smooth[-1][1] for _, smooth in rows if smooth]
    starts = sorted(loss for _, loss in points)
    # The first losses can be far above all others and would flatten the curves, so they do not set the axis.
    low, high = padded_range([min(lasts), starts[int(0.98 * (len(starts) - 1))], max(lasts)])
    panel = Panel(Scale(0.0, max(x for x, _ in points) or 1.0, LEFT, width - RIGHT), Scale(low, high, 190.0, 30.0))
    parts, ends = [panel.axes("tokens trained", "training loss", x_ticks=_ticks(width))], dict[int, Point]()
    for place, smooth in rows:
        inside = [(x, min(max(y, low), high)) for x, y in smooth]
        parts.append(path(panel.points(inside), f"line {series_class(place)}"))
        if inside:
            ends.setdefault(place, panel.points(inside)[-1])
    parts += draw_letters(ends)
    return picture(width, 232, "Training loss", f"Smoothed loss of {len(rows)} runs.", parts)


def draw_dev_curves(groups: Sequence[Group], width: float) -> Markup | None:
    """Draw nDCG@10 during training of every run, on the suite with the most evaluations; None if there are none."""
    logs = _logs(groups)
    suites = [row.suite for _, log in logs for row in log.evaluations]
    if not suites:
        return None
    suite = max(sorted(set(suites)), key=suites.count)
    rows = [(place, [one for one in log.evaluations if one.suite == suite]) for place, log in logs]
    rows = [(place, own) for place, own in rows if own]
    values = [one.value for _, own in rows for one in own if math.isfinite(one.value)]
    low, high = padded_range(values)
    last = max(one.tokens for _, own in rows for one in own) or 1.0
    panel = Panel(Scale(0.0, last, LEFT, width - RIGHT), Scale(max(low, 0.0), min(high, 1.0), 170.0, 30.0))
    parts, ends = [panel.axes("tokens trained", f"nDCG@10 on {suite}", x_ticks=_ticks(width))], dict[int, Point]()
    for place, own in rows:
        points = panel.points([(one.tokens, one.value) for one in own])
        parts.append(path(points, f"line {series_class(place)}"))
        parts += [marker(at, f"mark {series_class(place)}", series_shape(place)) for at in points]
        ends.setdefault(place, points[-1])
    parts += draw_letters(ends)
    return picture(width, 212, "Scores during training", f"nDCG@10 of {len(rows)} runs on {suite}.", parts)


def draw_cost_against_quality(groups: Sequence[Group], section: SuiteSection, width: float) -> Markup | None:
    """Draw the score and interval of each recipe over minutes of training; None for fewer than two recipes."""
    seconds = {group.label: group.cost()["seconds"] for group in groups}
    rows = [
        (place, label, minutes / 60, row.result.interval(section.metric))
        for place, label in enumerate(group.label for group in groups)
        for row in section.rows
        if row.label == label and (minutes := seconds[label])
    ]
    if len(rows) < 2:
        return None
    low, high = padded_range([edge for _, _, _, one in rows for edge in (one.low, one.high)])
    longest = max(minutes for _, _, minutes, _ in rows)
    panel = Panel(Scale(0.0, longest * 1.15, LEFT, width - RIGHT), Scale(max(low, 0.0), min(high, 1.0), 190.0, 30.0))
    parts = [
        panel.axes(
            "minutes of training",
            f"{METRICS.get(section.metric, section.metric)} on {section.name}",
            x_ticks=_ticks(width),
        )
    ]
    for place, _, minutes, one in rows:
        x, css = panel.x(minutes), series_class(place)
        parts.append(line((x, panel.y(one.low)), (x, panel.y(one.high)), f"interval {css}"))
        parts.append(marker((x, panel.y(one.mean)), f"mark {css}", series_shape(place), 5.0))
    parts += draw_letters({place: (panel.x(minutes), panel.y(one.mean)) for place, _, minutes, one in rows})
    described = "; ".join(f"{label}: {minutes:.1f} min, {one.mean:.3f}" for _, label, minutes, one in rows)
    return picture(width, 232, "Cost against quality", described, parts)


def _logs(groups: Sequence[Group]) -> list[tuple[int, TrainingLog]]:
    return [(place, run.training) for place, group in enumerate(groups) for run in group.runs]


def _ticks(width: float) -> int:
    return 4 if width < 500 else 7
