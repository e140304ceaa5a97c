"""The page about one run, in one HTML file that needs no network and reads on a phone, in dark mode and on paper."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gemma4vec.data.suites.kinds import name_items
from gemma4vec.evaluation.results.marks import model_marks, quality_of, suite_marks
from gemma4vec.report.charts import score_charts as charts
from gemma4vec.report.charts.checkpoint_charts import draw_checkpoint_charts
from gemma4vec.report.charts.forest import draw_forest_axis, draw_forest_row, forest_scale
from gemma4vec.report.content.comparison_notes import list_comparison_notes
from gemma4vec.report.content.contamination_sentence import contamination_sentence
from gemma4vec.report.content.examples import find_examples
from gemma4vec.report.content.headline import format_headline, select_main_suite
from gemma4vec.report.content.run_data import (
    METRICS,
    MODELS,
    PRIMARY,
    RunData,
    SuiteResults,
    describe_method,
    format_value,
    label,
    primary_metric,
    read_run,
    select_columns,
)
from gemma4vec.report.templating import FOREST, NARROW, WIDE, Chart, draw_chart, render_template, write_page

REPORT = "report.html"


def write_report(run: Path, out: Path | None = None) -> Path:
    """Write the page to `out` (default `run/report.html`) and return its path. The page lists missing parts of the run.

    Raises:
        InputError: `run` is not a run folder.
        WorkError: the file cannot be written.
    """
    return write_page(out or run / REPORT, render_run(read_run(run)))


def render_run(run: RunData) -> str:
    """Return the page as HTML."""
    return render_template("run.html", run_values(run))


def run_values(run: RunData, *, examples: bool = True) -> dict[str, Any]:
    """Return the template values of the page; `examples` loads the suites' texts."""
    return {
        "title": str(run.manifest.get("name") or run.run_id),
        "run": run,
        "headline": format_headline(run),
        "label": label,
        "costs": run.training.costs(),
        "curve": _draw_learning_curve(run),
        "throughput": draw_chart(lambda width: charts.draw_throughput(run.training, width)),
        "checkpoints": draw_checkpoint_charts(run),
        "sections": [_section(run, suite, examples) for suite in _sort_suites(run)],
        "settings": _group_settings(run.manifest),
        "license": _license_lines(run.manifest),
    }


def _sort_suites(run: RunData) -> list[SuiteResults]:
    main = select_main_suite(run)
    return sorted(run.suites, key=lambda suite: (suite is not main, suite.name))


def _draw_learning_curve(run: RunData) -> Chart | None:
    if len(run.training.steps) < 2:
        return None
    return draw_chart(lambda width: charts.draw_learning_curve(run.training, width))


def _section(run: RunData, suite: SuiteResults, examples: bool) -> dict[str, Any]:
    """Return the template values of one suite."""
    comparisons, first = suite.comparisons, next(iter(suite.results.values()))
    columns = select_columns(first)
    # Metrics of all items together, such as a correlation, have no score per query to show.
    by_query = PRIMARY in first.metrics
    scale = forest_scale((one.interval for one in comparisons.values()), FOREST)
    metric = METRICS.get(primary_metric(first), primary_metric(first))
    against = "bm25" if "bm25" in comparisons else next(iter(comparisons), "")
    return {
        "name": suite.name,
        "counts": first.settings.get("suite") or {},
        "columns": columns,
        "metric": metric,
        "queries": len(first.keys),
        "item_word": name_items(first.kind, len(first.keys)),
        "method": describe_method(first.kind),
        "rows": [
            (model, {name: result.interval(name) for name in columns if name in result.metrics})
            for model, result in suite.results.items()
        ],
        "notes": _list_notes(suite),
        "family": suite.family.sentence() if suite.family else "",
        "stamps": [
            (label(model), sentence)
            for model, one in suite.results.items()
            if (sentence := contamination_sentence(one))
        ],
        "forest": [
            (other, one, draw_forest_row(f"{one.a} minus {one.b}", one.interval, scale, "trained"))
            for other, one in sorted(comparisons.items(), key=_model_order)
        ],
        "axis": draw_forest_axis(scale, metric, "right of zero, the trained model scores higher")
        if comparisons
        else None,
        "degenerate": {model for model, result in suite.results.items() if quality_of(result).get("degenerate")},
        "differences": [
            (other, _draw_differences(suite, other))
            for other in sorted(comparisons, key=lambda key: _model_order((key,)))
            if by_query
        ],
        "examples": find_examples(run, suite, against) if examples and against and by_query else None,
    }


def _model_order(item: tuple[Any, ...]) -> tuple[int, str]:
    known = list(MODELS)
    return (known.index(item[0]) if item[0] in known else len(known), str(item[0]))


def _draw_differences(suite: SuiteResults, other: str) -> Chart:
    """Draw the per-query differences from `other`."""
    one, another = (suite.results[model].values("ndcg@10")[1] for model in ("trained", other))
    values = (one - another).tolist()
    return Chart(*(charts.draw_differences(values, label(other), width) for width in (WIDE, NARROW)))


def _list_notes(suite: SuiteResults) -> list[str]:
    """List the limits of scores and verdicts: marks, ties, seeds, touched queries, differing settings."""
    notes = []
    for model, result in suite.results.items():
        ranking = quality_of(result)
        notes += [f"{label(model)}: {mark}." for mark in model_marks(result)]
        if ranking.get("degenerate"):
            continue
        if isinstance(ranking.get("tie_rate@10"), float) and ranking["tie_rate@10"] > 0.1:
            notes.append(f"{label(model)}: equal scores affect the top ten of {ranking['tie_rate@10']:.0%} of queries.")
    notes += [f"{mark}." for mark in suite_marks(next(iter(suite.results.values())))]
    notes += list_comparison_notes([(label(other), one) for other, one in suite.comparisons.items()], "Trained model")
    for other, comparison in suite.comparisons.items():
        for name, (ours, theirs) in comparison.differing_settings.items():
            notes.append(
                f"Setting {name} differs: trained model {format_value(ours)}, {label(other)} {format_value(theirs)}."
            )
    return notes


def _group_settings(manifest: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Group the manifest into (name, value) rows; plain values come first."""
    plain = [(name, format_value(value)) for name, value in manifest.items() if not isinstance(value, dict)]
    groups = [("run", plain)] if plain else []
    groups += [(name, list(_flatten(value))) for name, value in manifest.items() if isinstance(value, dict) and value]
    return groups


def _flatten(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, item in value.items():
        if isinstance(item, dict) and item:
            rows += _flatten(item, f"{prefix}{name} › ")
        else:
            rows.append((f"{prefix}{name}", format_value(item)))
    return rows


def _license_lines(manifest: Mapping[str, Any]) -> list[str]:
    """Return the license and terms of the base model from the manifest."""
    base = manifest.get("base")
    if not isinstance(base, dict):
        return []
    name, license_ = format_value(base.get("name") or "unknown"), base.get("licence")
    lines = [f"Base model: {name}. License: {format_value(license_) if license_ else 'not stated; ask the publisher'}."]
    lines += [format_value(base[key]) for key in ("terms", "terms_url") if base.get(key)]
    return lines
