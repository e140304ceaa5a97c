"""Charts of one run. Each is drawn for a given width, so a phone shows its own chart, not a shrunken one."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from gemma4vec.report.charts.svg import (
    Panel,
    Scale,
    line,
    marker,
    padded_range,
    path,
    picture,
    text,
)
from gemma4vec.report.content.training_log import Evaluation, TrainingLog

DASHES = ("", "dashed", "dotted")
MOST_POINTS = 1200  # more points would be closer than a pixel
LEFT, RIGHT = 44.0, 20.0


def draw_learning_curve(log: TrainingLog, width: float, references: Sequence[tuple[str, float]] = ()) -> Markup:
    """Draw training loss over tokens, and below it nDCG@10 at each evaluation on the same axis.

    `references`: scores of models that do not train, such as BM25, each a horizontal line.
    """
    evaluations = [row for row in log.evaluations if math.isfinite(row.value)]
    panels = [_draw_loss(log, width, 30.0, 190.0)]
    bottom = 190.0
    if evaluations:
        panels.append(_draw_evaluations(log, evaluations, width, (250.0, 380.0), references))
        bottom = 380.0
    panels.append(_draw_minutes(log, width, bottom))
    last = log.smoothed_loss[-1][1] if log.smoothed_loss else math.nan
    description = (
        f"Smoothed training loss at the end: {last:.3f} after {log.steps[-1].tokens:,.0f} tokens. "
        + "; ".join(f"{row.suite} at step {row.step}: {row.value:.3f}" for row in evaluations[-5:])
    )
    return picture(width, bottom + 62, "Learning curve", description, panels)


def _token_scale(log: TrainingLog, width: float) -> Scale:
    return Scale(0.0, max((step.tokens for step in log.steps), default=1.0) or 1.0, LEFT, width - RIGHT)


def _draw_loss(log: TrainingLog, width: float, top: float, bottom: float) -> Markup:
    smooth = log.smoothed_loss
    raw = [(step.tokens, step.loss) for step in log.steps if math.isfinite(step.loss)]
    # The first losses can be far above all others and would flatten the curve, so the axis ignores outliers.
    losses = np.array([loss for _, loss in raw] or [0.0])
    low, high = padded_range(
        [float(np.quantile(losses, 0.002)), float(np.quantile(losses, 0.998)), *(y for _, y in smooth)]
    )
    panel = Panel(_token_scale(log, width), Scale(low, high, bottom, top))
    inside = [(x, min(max(y, low), high)) for x, y in _thin_out(raw)]
    axes = panel.axes("", "training loss", x_ticks=_x_ticks(width), x_numbers=not log.evaluations)
    return axes + path(panel.points(inside), "line raw") + path(panel.points(_thin_out(smooth)), "line trained")


def _draw_evaluations(
    log: TrainingLog,
    rows: Sequence[Evaluation],
    width: float,
    place: tuple[float, float],
    references: Sequence[tuple[str, float]],
) -> Markup:
    top, bottom = place
    edges = [edge for row in rows for edge in (row.low, row.high, row.value) if edge is not None]
    edges += [value for _, value in references]
    low, high = padded_range(edges, include=[0.0] if min(edges) < 0.25 else [])
    panel = Panel(_token_scale(log, width), Scale(max(low, 0.0), min(high, 1.0), bottom, top))
    parts = [panel.axes("", "nDCG@10", x_ticks=_x_ticks(width))]
    for name, value in references:
        y = panel.y(value)
        parts.append(line((panel.x.start, y), (panel.x.end, y), "zero dashed"))
        parts.append(text((panel.x.start + 4, y - 5), f"{name} {value:.3f}", "label other-text"))
    for number, suite in enumerate(sorted({row.suite for row in rows})):
        own = [row for row in rows if row.suite == suite]
        parts.append(path(panel.points([(row.tokens, row.value) for row in own]), f"line trained {DASHES[number % 3]}"))
        for row in own:
            x, y = panel.x(row.tokens), panel.y(row.value)
            if row.low is not None and row.high is not None:
                ends = [panel.y(min(max(edge, panel.y.low), panel.y.high)) for edge in (row.low, row.high)]
                parts.append(line((x, ends[0]), (x, ends[1]), "interval trained"))
            parts.append(marker((x, y), "mark trained", ("circle", "square", "diamond")[number % 3]))
        x, y = panel.x(own[-1].tokens), panel.y(own[-1].value)
        parts.append(text((x - 8, y - 9), f"{suite} {own[-1].value:.3f}", "label value", "end"))
    return Markup("").join(parts)


def _draw_minutes(log: TrainingLog, width: float, bottom: float) -> Markup:
    """Label the token axis with the minutes at which training reached each count."""
    scale = _token_scale(log, width)
    at = np.array([0.0, *(step.tokens for step in log.steps)])
    minutes = np.array([0.0, *(step.seconds / 60 for step in log.steps)])
    marks = scale.ticks(_x_ticks(width))
    timed = bool((minutes > 0).any())
    parts = [
        text((scale(mark), bottom + 32), _minute_label(mark, at, minutes), "tick faint", "middle")
        for mark in marks
        if timed and mark > 0
    ]
    words = "tokens trained; below them: time" if timed else "tokens trained"
    return Markup("").join([*parts, text((width - RIGHT, bottom + 52), words, "label", "end")])


def _minute_label(tokens: float, at: npt.NDArray[np.float64], minutes: npt.NDArray[np.float64]) -> str:
    found = float(np.interp(tokens, at, minutes))
    if minutes[-1] < 1:
        return f"{60 * found:.0f} s"
    return f"{found:.1f} min" if found < 10 else f"{found:,.0f} min"


def _x_ticks(width: float) -> int:
    return 4 if width < 500 else 7


def draw_throughput(log: TrainingLog, width: float) -> Markup | None:
    """Draw tokens per second over the training; None if fewer than two steps recorded them."""
    rates = [(step.tokens, step.rate) for step in log.steps if step.rate is not None]
    if len(rates) < 2:
        return None
    median = float(np.median([rate for _, rate in rates]))
    top = max(rate for _, rate in rates) * 1.08
    panel = Panel(_token_scale(log, width), Scale(0.0, top, 130.0, 30.0))
    parts = [
        panel.axes("tokens trained", "tokens per second", x_ticks=_x_ticks(width), y_ticks=3),
        path(panel.points(_thin_out(rates)), "line raw"),
        line((panel.x.start, panel.y(median)), (panel.x.end, panel.y(median)), "line trained dashed"),
        text((panel.x.end, 18), f"median {median:,.0f}", "label value", "end"),
    ]
    return picture(width, 172, "Throughput", f"Median of {median:,.0f} tokens per second.", parts)


def _thin_out(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return at most `MOST_POINTS` points: minimum and maximum of each stretch, so that spikes stay visible."""
    if len(points) <= MOST_POINTS:
        return list(points)
    kept: list[tuple[float, float]] = []
    first = 0
    for stretch in np.array_split(np.array([y for _, y in points]), MOST_POINTS // 2):
        ends = {first + int(stretch.argmin()), first + int(stretch.argmax())}
        kept.extend(points[row] for row in sorted(ends))
        first += len(stretch)
    return kept


def draw_differences(values: Sequence[float], other: str, width: float) -> Markup:
    """Draw the sorted per-query differences with the numbers of better and worse queries."""
    ordered = np.sort(np.asarray(values, dtype=float))[::-1]
    count = len(ordered)
    panel = Panel(Scale(0.0, float(count), LEFT, width - RIGHT), Scale(-1.0, 1.0, 190.0, 30.0))
    wins, losses = int((ordered > 0).sum()), int((ordered < 0).sum())
    parts = [panel.axes("queries, best for the trained model first", "difference in nDCG@10", x_ticks=_x_ticks(width))]
    for start, end, css in ((0, wins, "area trained"), (count - losses, count, "area other")):
        if end > start:
            parts.append(path(_outline_bars(panel, ordered, start, end), css, closed=True))
    parts.append(line((panel.x.start, panel.y(0)), (panel.x.end, panel.y(0)), "zero"))
    # Each label is on the empty side of its bars, and does not touch the other bars.
    if wins:
        parts.append(text((panel.x.start + 6, panel.y(-0.2)), f"{wins:,} better", "label trained-text"))
    if losses:
        clear = wins < 0.75 * count
        right, level = (panel.x.end - 4, 0.12) if clear else (panel.x(count - losses) - 8, -0.35)
        parts.append(text((right, panel.y(level)), f"{losses:,} worse", "label other-text", "end"))
    ties = count - wins - losses
    summary = f"{wins} queries better than {other}, {ties} equal, {losses} worse."
    return picture(width, 232, f"Per-query differences from {other}", summary, parts)


def _outline_bars(panel: Panel, ordered: np.ndarray, start: int, end: int) -> list[tuple[float, float]]:
    """Return the outline of bars `start` to `end` in pixels; equal neighbors become one step."""
    outline = [(panel.x(start), panel.y(0.0))]
    row = start
    while row < end:
        last = row
        while last + 1 < end and ordered[last + 1] == ordered[row]:
            last += 1
        y = panel.y(float(ordered[row]))
        outline += [(panel.x(row), y), (panel.x(last + 1), y)]
        row = last + 1
    return [*outline, (panel.x(end), panel.y(0.0))]
