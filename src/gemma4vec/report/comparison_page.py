"""The page about several runs: their scores, comparisons, training and differing settings, in one HTML file."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup

from gemma4vec.data.suites.kinds import name_items
from gemma4vec.errors import InputError
from gemma4vec.evaluation.comparison.paired import Comparison
from gemma4vec.evaluation.results.marks import quality_of
from gemma4vec.report.charts import comparison_charts
from gemma4vec.report.charts.checkpoint_charts import draw_checkpoint_charts
from gemma4vec.report.charts.forest import draw_forest_axis, draw_forest_row, forest_scale
from gemma4vec.report.charts.series import draw_swatch, series_class, series_letter, series_shape
from gemma4vec.report.charts.svg import Scale
from gemma4vec.report.content.comparison_data import (
    Group,
    RunComparison,
    SuiteSection,
    TaskDifference,
    read_comparison,
)
from gemma4vec.report.content.comparison_headline import format_comparison_headline, order_sentences
from gemma4vec.report.content.contamination_sentence import contamination_sentence
from gemma4vec.report.content.examples import find_examples
from gemma4vec.report.content.run_data import METRICS, PRIMARY, describe_method, format_value, select_columns, shorten
from gemma4vec.report.templating import draw_chart, render_template, write_page
from gemma4vec.statistics.multiplicity import Correction

FOREST_WIDTH = 290.0  # narrower than on a run's page: recipe names need more space than model names
CELL = 60  # characters of a recipe value in the table of differences
MOST_DIFFERING = 60


def write_comparison(folders: Sequence[Path], out: Path, correction: Correction = "holm") -> Path:
    """Write the page about several runs to `out`.

    Raises:
        InputError: fewer than two runs, a folder that is not a run, or `out` is a folder.
        WorkError: the file cannot be written.
    """
    if out.is_dir():
        raise InputError(f"{out} is a folder; give --out the name of a file, such as {out / 'report.html'}")
    return write_page(out, render_comparison(read_comparison(folders, correction), correction))


def render_comparison(found: RunComparison, correction: Correction) -> str:
    """Return the page as HTML."""
    return render_template("comparison.html", comparison_values(found, correction))


def comparison_values(found: RunComparison, correction: Correction, *, examples: bool = True) -> dict[str, Any]:
    """Return the template values of the page; `examples` loads the suites' texts."""
    groups, first = found.groups, found.groups[0].label
    places = {group.label: place for place, group in enumerate(groups)}
    letters = {label: series_letter(place) for label, place in places.items()}
    names = {label: f"{letter} {label}" for label, letter in letters.items()}
    return {
        "title": " against ".join(places) if len(places) < 4 else f"{len(places)} recipes",
        "found": found,
        "first": first,
        "headline": format_comparison_headline(found, names),
        "orders": order_sentences(found, names),
        "created": datetime.now(UTC).isoformat(" ", "minutes")[:16],
        "correction": {"holm": "Holm", "benjamini-hochberg": "Benjamini-Hochberg"}.get(correction, correction),
        "letters": letters,
        "swatches": {label: draw_swatch(place) for label, place in places.items()},
        "runs": [_describe_runs(group) for group in groups],
        "sections": [_section(found, section, places, examples) for section in found.suites],
        "losses": draw_chart(lambda width: comparison_charts.draw_loss_curves(groups, width)),
        "dev": draw_chart(lambda width: comparison_charts.draw_dev_curves(groups, width)),
        "checkpoints": [
            (run.run_id, suite, picture, sentence)
            for group in groups
            for run in group.runs
            for suite, picture, sentence in draw_checkpoint_charts(run)
        ],
        "differing": [
            (name, [shorten(value, CELL) for value in row]) for name, row in found.differing[:MOST_DIFFERING]
        ],
        "more_differing": max(0, len(found.differing) - MOST_DIFFERING),
        "costs": [(group.label, _format_costs(group)) for group in groups],
    }


def _describe_runs(group: Group) -> dict[str, Any]:
    """Return seed, hypothesis and decision of each run of a recipe."""
    return {
        "label": group.label,
        "recipe_id": group.recipe_id,
        "hypothesis": next((run.hypothesis for run in group.runs if run.hypothesis), ""),
        "runs": [
            {"id": run.run_id, "seed": run.manifest.get("seed"), "decision": run.decision, "path": str(run.path)}
            for run in group.runs
        ],
    }


def _section(found: RunComparison, section: SuiteSection, places: dict[str, int], examples: bool) -> dict[str, Any]:
    """Return the template values of one suite."""
    comparisons = [one for _, _, one in section.comparisons]
    scale = forest_scale((one.interval for one in comparisons), FOREST_WIDTH)
    by_task = forest_scale(section.tasks, FOREST_WIDTH)
    first, columns = found.groups[0].label, select_columns(section.rows[0].result)
    home = next(group for group in found.groups if group.label == section.results.names["trained"])
    kind = section.rows[0].result.kind
    return {
        "name": section.name,
        "metric": METRICS.get(section.metric, section.metric),
        "counts": section.rows[0].result.settings.get("suite") or {},
        "columns": columns,
        "queries": len(section.rows[0].result.keys),
        "item_word": name_items(kind, len(section.rows[0].result.keys)),
        "method": describe_method(kind, over_seeds=any(_over_seeds(one) for one in comparisons)),
        "degenerate": {row.label for row in section.rows if quality_of(row.result).get("degenerate")},
        "rows": [
            (row, {name: row.result.interval(name) for name in columns if name in row.result.metrics})
            for row in section.rows
        ],
        "forest": [
            (a, b, one, draw_forest_row(f"{a} minus {b}", one.interval, scale, "difference"))
            for a, b, one in section.comparisons
        ],
        "axis": draw_forest_axis(scale, section.metric) if comparisons else None,
        "family": section.family.sentence() if section.family else "",
        "tasks": [(row, _draw_task_row(row, by_task, places[row.label], first)) for row in section.tasks],
        "several_tasks": len({row.task for row in section.tasks}) > 1,
        "task_axis": draw_forest_axis(by_task, section.metric) if section.tasks else None,
        "cost": draw_chart(lambda width: comparison_charts.draw_cost_against_quality(found.groups, section, width)),
        "stamps": _contamination_sentences(section),
        "notes": [format_value(note) for note in section.notes],
        "examples": find_examples(home.runs[0], section.results, "other")
        if examples and section.metric == PRIMARY
        else None,
        "best": section.results.names["trained"],
    }


def _over_seeds(one: Comparison) -> bool:
    return one.scope is not None and one.scope.of == "recipes"


def _draw_task_row(row: TaskDifference, scale: Scale, place: int, first: str) -> Markup:
    """Draw one recipe's difference from the first recipe on one task."""
    title = f"{row.label} minus {first} on {row.task}"
    return draw_forest_row(title, row, scale, series_class(place), series_shape(place))


def _contamination_sentences(section: SuiteSection) -> list[tuple[str, str]]:
    """Return (recipes, contamination sentence) pairs; recipes with the same sentence share one pair."""
    labels_by_sentence: dict[str, list[str]] = {}
    for row in section.rows:
        if sentence := contamination_sentence(row.result):
            labels_by_sentence.setdefault(sentence, []).append(row.label)
    return [(", ".join(labels), sentence) for sentence, labels in labels_by_sentence.items()]


def _format_costs(group: Group) -> list[str]:
    """Format minutes, tokens, tokens per second (means over the runs) and peak memory of a recipe's training."""
    cost = group.cost()
    seconds, tokens, memory = cost["seconds"], cost["tokens"], cost["memory"]
    return [
        f"{seconds / 60:.1f}" if seconds else "-",
        f"{tokens:,.0f}" if tokens else "-",
        f"{tokens / seconds:,.0f}" if tokens and seconds else "-",
        f"{memory / 2**30:.2f}" if memory else "-",
    ]
