"""One HTML file about a run: opens from disk, needs no network, and reads on a phone, in the dark and on paper."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gemma4vec.data.suites.kinds import name_items
from gemma4vec.report.charts import score_charts as charts
from gemma4vec.report.charts.checkpoint_charts import checkpoint_charts
from gemma4vec.report.content.contamination_sentence import stamp_sentence
from gemma4vec.report.content.examples import find_examples
from gemma4vec.report.content.headline import headline, main_suite
from gemma4vec.report.content.run_data import (
    METRICS,
    MODELS,
    PRIMARY,
    RunData,
    SuiteResults,
    as_text,
    columns_of,
    label,
    method_words,
    primary_of,
    read_run,
)
from gemma4vec.report.templating import FOREST, NARROW, WIDE, Chart, drawn, render_template, write_page

REPORT = "report.html"


def write_report(run: Path, out: Path | None = None) -> Path:
    """Write `run/report.html`, or `out`, and return its path. Parts of the run that are missing are named on the page.

    Raises:
        InputError: `run` is no run folder.
        WorkError: the file cannot be written.
    """
    return write_page(out or run / REPORT, render(read_run(run)))


def render(run: RunData) -> str:
    """The page as HTML."""
    values = {
        "title": str(run.manifest.get("name") or run.run_id),
        "run": run,
        "headline": headline(run),
        "label": label,
        "costs": run.training.costs(),
        "curve": _learning_curve(run),
        "throughput": drawn(lambda width: charts.throughput(run.training, width)),
        "checkpoints": checkpoint_charts(run),
        "sections": [_section(run, suite) for suite in _main_first(run)],
        "settings": _settings(run.manifest),
        "licence": _licence(run.manifest),
    }
    return render_template("report.html", values)


def _main_first(run: RunData) -> list[SuiteResults]:
    main = main_suite(run)
    return sorted(run.suites, key=lambda suite: (suite is not main, suite.name))


def _learning_curve(run: RunData) -> Chart | None:
    if len(run.training.steps) < 2:
        return None
    return drawn(lambda width: charts.learning_curve(run.training, width))


def _section(run: RunData, suite: SuiteResults) -> dict[str, Any]:
    """All that the page says about one suite."""
    comparisons, first = suite.comparisons, next(iter(suite.results.values()))
    columns = columns_of(first)
    # Where each item has no score of its own (a correlation), there is nothing to show item by item.
    by_query = PRIMARY in first.metrics
    scale = charts.forest_scale(list(comparisons.values()), FOREST)
    against = "bm25" if "bm25" in comparisons else next(iter(comparisons), "")
    return {
        "name": suite.name,
        "counts": first.settings.get("suite") or {},
        "columns": columns,
        "metric": METRICS.get(primary_of(first), primary_of(first)),
        "queries": len(first.keys),
        "item_word": name_items(first.kind, len(first.keys)),
        "method": method_words(first.kind),
        "rows": [
            (model, {name: result.interval(name) for name in columns if name in result.metrics})
            for model, result in suite.results.items()
        ],
        "notes": _notes(suite),
        "family": suite.family.sentence() if suite.family else "",
        "stamps": [(label(model), said) for model, one in suite.results.items() if (said := stamp_sentence(one))],
        "forest": [
            (other, one, charts.forest_row(one, scale, "trained"))
            for other, one in sorted(comparisons.items(), key=_order)
        ],
        "axis": charts.forest_axis(scale, METRICS.get(primary_of(first), primary_of(first))) if comparisons else None,
        "differences": [
            (other, _differences(suite, other))
            for other in sorted(comparisons, key=lambda key: _order((key,)))
            if by_query
        ],
        "examples": find_examples(run, suite, against) if against and by_query else None,
    }


def _order(item: tuple[Any, ...]) -> tuple[int, str]:
    known = list(MODELS)
    return (known.index(item[0]) if item[0] in known else len(known), str(item[0]))


def _differences(suite: SuiteResults, other: str) -> Chart:
    """The distribution of per-query differences to `other`."""
    one, another = (suite.results[model].values("ndcg@10")[1] for model in ("trained", other))
    values = (one - another).tolist()
    return Chart(*(charts.differences(values, label(other), width) for width in (WIDE, NARROW)))


def _notes(suite: SuiteResults) -> list[str]:
    """What limits the scores: ties, degenerate rankings, settings that differ."""
    notes = []
    for model, result in suite.results.items():
        ranking = result.settings.get("ranking") or {}
        if ranking.get("degenerate"):
            notes.append(
                f"{label(model)}: most queries gave every document the same score, so its ranking means nothing."
            )
        elif isinstance(ranking.get("tie_rate@10"), float) and ranking["tie_rate@10"] > 0.1:
            notes.append(f"{label(model)}: equal scores decide the top ten of {ranking['tie_rate@10']:.0%} of queries.")
    for other, comparison in suite.comparisons.items():
        if comparison.without_touched:
            notes.append(f"Trained model minus {label(other)}: {comparison.without_touched.sentence()}.")
        for name, (ours, theirs) in comparison.differing_settings.items():
            notes.append(f"Setting {name} differs: trained model {as_text(ours)}, {label(other)} {as_text(theirs)}.")
    return notes


def _settings(manifest: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """The manifest as groups of (name, value) rows; plain values first."""
    plain = [(name, as_text(value)) for name, value in manifest.items() if not isinstance(value, dict)]
    groups = [("run", plain)] if plain else []
    groups += [(name, list(_flat(value))) for name, value in manifest.items() if isinstance(value, dict) and value]
    return groups


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, item in value.items():
        if isinstance(item, dict) and item:
            rows += _flat(item, f"{prefix}{name} › ")
        else:
            rows.append((f"{prefix}{name}", as_text(item)))
    return rows


def _licence(manifest: Mapping[str, Any]) -> list[str]:
    """The terms under which the base may be used, as the manifest records them."""
    base = manifest.get("base")
    if not isinstance(base, dict):
        return []
    name, licence = as_text(base.get("name") or "unknown"), base.get("licence")
    lines = [f"Base model: {name}. Licence: {as_text(licence) if licence else 'not stated; ask who published it'}."]
    lines += [as_text(base[key]) for key in ("terms", "terms_url") if base.get(key)]
    return lines
