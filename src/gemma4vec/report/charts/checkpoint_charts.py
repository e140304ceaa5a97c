"""Charts of checkpoint scores over training steps, with the bias of choosing the best checkpoint."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from gemma4vec.evaluation.planning.checkpoint_choice import CheckpointPlace, choice_sentence, choose_checkpoint
from gemma4vec.evaluation.results.result import Result
from gemma4vec.report.charts.svg import Panel, Scale, line, marker, padded_range, path, picture, text
from gemma4vec.report.content.run_data import PRIMARY, RunData
from gemma4vec.report.templating import Chart, draw_chart
from gemma4vec.statistics.bootstrap import Interval

LEFT, RIGHT = 44.0, 20.0


def draw_checkpoint_charts(run: RunData) -> list[tuple[str, Chart, str]]:
    """Return (suite, chart, sentence about the best) for every suite with at least two evaluated checkpoints."""
    found = []
    for suite, results in sorted(run.checkpoints.items()):
        measured = {place: one for place, one in results.items() if PRIMARY in one.metrics}
        if len(measured) < 2:
            continue
        rows = order_by_step(measured)
        best, chosen = choose_checkpoint(measured, PRIMARY)
        role = (measured[best].settings.get("suite") or {}).get("role")
        step = rows[sorted(measured).index(best)][0]
        chart = draw_chart(lambda width, rows=rows, step=step: draw_checkpoint_curve(rows, step, width))  # type: ignore[misc]
        if chart is not None:
            found.append((suite, chart, choice_sentence(best, chosen, suite, role)))
    return found


def order_by_step(results: Mapping[CheckpointPlace, Result]) -> list[tuple[int, Interval]]:
    """Return (step, score with interval) in training order; steps count on from stage to stage."""
    rows, before, last, stage_now = [], 0, 0, None
    for stage, step in sorted(results):
        if stage != stage_now:
            before, stage_now = last, stage
        last = before + step
        rows.append((last, results[stage, step].interval(PRIMARY)))
    return rows


def draw_checkpoint_curve(rows: Sequence[tuple[int, Interval]], best: int, width: float) -> Markup:
    """Draw nDCG@10 over steps with intervals, and label the best checkpoint."""
    low, high = padded_range([edge for _, one in rows for edge in (one.low, one.high)])
    panel = Panel(
        Scale(0.0, float(rows[-1][0]) or 1.0, LEFT, width - RIGHT), Scale(max(low, 0.0), min(high, 1.0), 170.0, 30.0)
    )
    parts = [
        panel.axes("optimizer steps", "nDCG@10", x_ticks=4 if width < 500 else 7),
        path(panel.points([(step, one.mean) for step, one in rows]), "line trained"),
    ]
    for step, one in rows:
        x, y = panel.x(step), panel.y(one.mean)
        parts.append(line((x, panel.y(one.low)), (x, panel.y(one.high)), "interval trained"))
        parts.append(marker((x, y), "mark trained", "diamond" if step == best else "circle"))
        if step == best:
            at_end = x > width / 2
            parts.append(
                text(
                    (x + (-8 if at_end else 8), y - 9),
                    f"best {one.mean:.3f}",
                    "label value",
                    "end" if at_end else "start",
                )
            )
    described = "; ".join(f"step {step}: {one.mean:.3f}" for step, one in rows)
    return picture(width, 212, "Scores of the checkpoints", described, parts)
